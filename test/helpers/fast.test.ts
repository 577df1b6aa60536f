/** The fast tests: their choice, and the count of files that share a process. */
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, resolve } from 'node:path'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import t from 'tap'
import { fastFiles, processesFor, slowReason } from './fast.ts'
import { runToEnd } from './processes.ts'
import type { Tally } from './tally.ts'
import { talliesOf } from './tally.ts'

const home = resolve(import.meta.dirname, '../..')

t.test('no fast file starts an external program or installs packages', async (t) => {
  const sources = new Map(
    globSync('test/**/*.ts', { cwd: home }).map((file) => [file, readFileSync(join(home, file), 'utf8')] as const)
  )
  const reached = (file: string, seen = new Set<string>()): Set<string> => {
    if (seen.has(file) || !sources.has(file)) return seen
    seen.add(file)
    for (const [, target] of sources.get(file)!.matchAll(/(?:from|import\()\s*'(\.[^']+)'/g)) {
      reached(normalize(join(dirname(file), target!)), seen)
    }
    return seen
  }
  const files = fastFiles()
  t.ok(files.length > 100, `${files.length} files`)
  const slow = files.filter((file) => {
    return ['test/helpers/tools.ts', 'test/helpers/packages.ts'].some((program) => reached(file).has(program))
  })
  t.strictSame(slow, [], 'their first lines should be `// slow: REASON`')
  t.ok(reached('test/helpers/redis.test.ts').has('test/helpers/tools.ts'), 'the search finds indirect imports')
})

t.test('the fast files test both halves, operations, plugins and the configuration', async (t) => {
  const files = fastFiles()
  for (const folder of ['config', 'edge/bridge', 'edge/concerns', 'edge/protocol', 'mesh/concerns', 'mesh/http']) {
    t.ok(files.filter((file) => file.startsWith(`test/${folder}/`)).length >= 5, folder)
  }
  for (const folder of ['operations', 'plugins', 'routes', 'mesh/discovery', 'mesh/health']) {
    t.ok(files.filter((file) => file.startsWith(`test/${folder}/`)).length >= 3, folder)
  }
})

t.test('the first line says that a file is slow, and why', async (t) => {
  t.equal(slowReason('// slow: starts Redis\nimport t'), 'starts Redis')
  t.equal(slowReason('/** It is slow. */\n// slow: starts Redis'), undefined)
})

t.test('each file runs in one process, beside others of its folder', async (t) => {
  const files = Array.from({ length: 30 }, (_, i) => `a/${i}.test.ts`).concat('b/0.test.ts')
  const lists = processesFor(files)
  t.strictSame(
    lists.map((list) => list.length),
    [10, 10, 10, 1]
  )
  t.strictSame(lists.flat().sort(), [...files].sort())
})

/** Runs files in one process; returns the tallies of those that ended, and the rest. */
async function several(folder: string, names: readonly string[]) {
  const program = join(import.meta.dirname, 'several.ts')
  const clean = Object.fromEntries(Object.entries(process.env).filter(([key]) => !/^_?TAP|^NODE_OPTIONS$/.test(key)))
  const files = names.map((name) => join(folder, name))
  const { code, stdout } = await runToEnd(process.execPath, [program, ...files], { env: clean })
  const ended: [string, string][] = []
  const { parser, rest } = talliesOf((file: string, tally: Tally) => {
    ended.push([file.slice(folder.length + 1), tally.line])
  })
  await pipeline(Readable.from([stdout]), parser)
  return { code, ended, rest }
}

t.test('files in one process are counted separately, and their teardowns run', async (t) => {
  const folder = t.testdir({
    'package.json': '{ "type": "module" }',
    'a.test.ts': `import t from 'tap'
t.teardown(() => { globalThis.closed = true })
t.test('outer', async (t) => { t.ok(true); t.test('inner', async (t) => { t.ok(true) }) })`,
    'b.test.ts': "import t from 'tap'\nt.test('later', async (t) => t.ok(globalThis.closed))",
    'c.test.ts': "import t from 'tap'\nt.test('wrong', async (t) => t.equal(1, 2))",
    'd.test.ts': "import './missing.ts'",
    'e.test.ts': "import t from 'tap'\nt.test('fine', async (t) => t.ok(true))"
  })
  const { code, ended, rest } = await several(
    folder,
    ['a', 'b', 'c', 'd', 'e'].map((name) => `${name}.test.ts`)
  )
  t.strictSame(ended, [
    ['a.test.ts', '2 passed, 0 failed'],
    ['b.test.ts', '1 passed, 0 failed'],
    ['c.test.ts', '0 passed, 1 failed'],
    ['d.test.ts', '0 passed, 1 failed'],
    ['e.test.ts', '1 passed, 0 failed']
  ])
  t.equal(code, 1)
  t.equal(rest.passed + rest.failed, 0)
})

t.test('files of a process that ends early are reported as not ended', async (t) => {
  const folder = t.testdir({
    'package.json': '{ "type": "module" }',
    'a.test.ts': "import t from 'tap'\nt.test('fine', async (t) => t.ok(true))",
    'b.test.ts': "import t from 'tap'\nt.test('ends', async (t) => { t.ok(true); process.exit(3) })"
  })
  const { code, ended } = await several(folder, ['a.test.ts', 'b.test.ts'])
  t.strictSame(ended, [['a.test.ts', '1 passed, 0 failed']])
  t.not(code, 0)
})
