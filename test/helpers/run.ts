// The test runner: makes sure of the tools, runs tap, and ends with the one line `N passed, N failed`.
// Arguments go on to tap, such as the names of test files.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { compileCache, trimCompileCache } from './compile-cache.ts'
import { ecosystemPackages } from './packages.ts'
import { tallyOf } from './tally.ts'
import { testTools, tool } from './tools.ts'

// Fetched here, so that the download does not count against a test's time limit.
for (const name of testTools) {
  await tool(name).catch((error: Error) => console.error(`Tests that need ${name} will fail: ${error.message}`))
}
await ecosystemPackages().catch((error: Error) =>
  console.error(`Tests of published plugins will fail: ${error.message}`)
)

trimCompileCache()
const tap = resolve(import.meta.dirname, '../../node_modules/tap')
const { bin } = JSON.parse(await readFile(join(tap, 'package.json'), 'utf8')) as { bin: { tap: string } }
const child = spawn(process.execPath, [join(tap, bin.tap), '--reporter=tap', ...process.argv.slice(2)], {
  env: { ...process.env, ...compileCache() },
  stdio: ['ignore', 'pipe', 'inherit']
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => child.kill(signal))

const { parser, tally, failures } = tallyOf((text) => process.stdout.write(text))
child.stdout.pipe(parser)
const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]

if (code !== 0 && tally.failed === 0) {
  tally.failed++
  console.log(`✖ tap ended with ${signal ?? code}`)
}
if (tally.passed + tally.failed === 0) console.log('✖ no test ran')
// Again at the end, where they are found even if the log was cut.
if (failures.length > 0) console.log(`\nFailed:\n${failures.join('')}`)
process.exitCode = tally.failed > 0 || tally.passed === 0 ? 1 : 0
console.log(tally.line)
