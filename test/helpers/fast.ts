// The fast tests: `npm run test:fast`, with the beginnings of paths as arguments to run a part of them. A test file is
// fast unless it is in test/e2e or its first line is `// slow: REASON`. The files of a folder share a process, which loads
// the gateway once.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { globSync, readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { compileCache, trimCompileCache } from './compile-cache.ts'
import { Tally, talliesOf } from './tally.ts'

const home = resolve(import.meta.dirname, '../..')
const filesPerProcess = 12
const limitMs = 3000
/** Files that took longer than the limit. */
const long: string[] = []

/** Returns the reason why a test file is slow, as its first line says, or undefined. */
export const slowReason = (source: string) => /^\/\/ slow: (.+)/.exec(source)?.[1]

export const fastFiles = () =>
  globSync('test/**/*.test.ts', { cwd: home })
    .filter((file) => !file.startsWith('test/e2e/'))
    .filter((file) => slowReason(readFileSync(join(home, file), 'utf8')) === undefined)
    .sort()

/** Returns the files in lists for one process each: at most twelve of one folder, the longest lists first. */
export function processesFor(files: readonly string[]): string[][] {
  const lists: string[][] = []
  for (const inFolder of Object.values(Object.groupBy(files, dirname))) {
    const count = Math.ceil(inFolder!.length / filesPerProcess)
    for (let i = 0; i < count; i++) lists.push(inFolder!.filter((_, index) => index % count === i))
  }
  return lists.sort((a, b) => b.length - a.length)
}

async function run(files: readonly string[], total: Tally): Promise<void> {
  const seen = new Set<string>()
  const child = spawn(process.execPath, [join(import.meta.dirname, 'several.ts'), ...files], {
    cwd: home,
    env: { ...process.env, ...compileCache() },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const { parser, rest } = talliesOf((file, tally, tookMs) => {
    seen.add(file)
    report(file, tally, tookMs)
    total.add(tally)
  })
  const end = () => child.kill()
  process.once('exit', end)
  child.stdout.pipe(parser)
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null]
  process.off('exit', end)
  const missing = files.filter((file) => !seen.has(file))
  if (missing.length > 0) rest.fail(`${missing.join(', ')}: the process ended with ${signal ?? code}`)
  else if (code !== 0 && total.failed + rest.failed === 0)
    rest.fail(`${files.join(', ')}: ended with ${signal ?? code}`)
  if (rest.failed > 0) report(dirname(files[0]!), rest, 0)
  total.add(rest)
}

function report(name: string, tally: Tally, tookMs: number): void {
  console.log(`${tally.failed > 0 ? '✖' : '✔'} ${name}: ${tally.line} (${(tookMs / 1000).toFixed(1)} s)`)
  if (tally.failed > 0) for (const note of tally.notes) console.log(note.replace(/^(?=.)/gm, '  '))
  if (tookMs > limitMs) long.push(name)
}

if (import.meta.main) {
  const begun = performance.now()
  const parts = process.argv.slice(2)
  const files = fastFiles().filter((file) => parts.length === 0 || parts.some((part) => file.startsWith(part)))
  const waiting = processesFor(files)
  trimCompileCache()
  const total = new Tally()
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(1))
  const worker = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await run(next, total)
  }
  await Promise.all(Array.from({ length: availableParallelism() }, worker))
  if (total.passed + total.failed === 0) console.log('✖ no test ran')
  process.exitCode = total.failed > 0 || total.passed === 0 ? 1 : 0
  if (long.length > 0) console.log(`Longer than ${limitMs / 1000} s, if the machine was quiet: ${long.join(', ')}`)
  console.log(`${files.length} files in ${((performance.now() - begun) / 1000).toFixed(1)} s`)
  console.log(total.line)
}
