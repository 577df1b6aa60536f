// slow: takes about 70 s of CPU
/**
 * Every concern and every source of instances is in one place: without its files and its line in the list, the rest
 * compiles, lints and runs. Several are deleted at a time, in such a way that for any two of them there is a copy that has
 * the one but not the other: whatever names one is found. All takes about 70 s of CPU, and took 160 s on two cores that
 * other programs used, too.
 */
import { cp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join, relative, resolve } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { runToEnd } from './helpers/processes.ts'

t.setTimeout(600_000)

const home = join(import.meta.dirname, '..')

/** Ordered lists, and the folders of their entries. */
const lists = {
  edge: { list: 'plugins/edge/index.ts', folder: 'concerns' },
  mesh: { list: 'plugins/mesh/chain.ts', folder: 'concerns' },
  discovery: { list: 'plugins/mesh/discovery/sources.ts', folder: '.' }
} as const

interface Concern {
  readonly half: keyof typeof lists
  /** Name of its file or folder. */
  readonly entry: string
}

const concerns = (half: keyof typeof lists, entries: string[]): Concern[] =>
  entries.sort().map((entry) => ({ half, entry }))

/** Returns the concerns of both halves and the sources of instances. */
async function deletable(): Promise<Concern[]> {
  const ofHalf = async (half: 'edge' | 'mesh') => concerns(half, await readdir(join(home, 'plugins', half, 'concerns')))
  const entries = await readdir(join(home, 'plugins/mesh/discovery'), { withFileTypes: true })
  const folders = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name)
  return [...(await ofHalf('edge')), ...(await ofHalf('mesh')), ...concerns('discovery', folders)]
}

const copies = 9
/** Choices of three copies out of nine: 84, none of which contains another. */
const choices = [...Array(2 ** copies).keys()].filter((bits) => bits.toString(2).replaceAll('0', '').length === 3)

/** A copy of the project without these concerns. */
async function copyWithout(t: Test, deleted: readonly Concern[]): Promise<string> {
  const copy = t.testdir({})
  for (const name of ['app.ts', 'config', 'plugins', 'routes', 'package.json', '.biome.json']) {
    await cp(join(home, name), join(copy, name), { recursive: true })
  }
  // `test` and the examples are not compiled: they name deleted concerns. Some of the tests that stay are run below.
  const tsconfig = JSON.parse(await readFile(join(home, 'tsconfig.json'), 'utf8')) as { exclude: string[] }
  await writeFile(
    join(copy, 'tsconfig.json'),
    JSON.stringify({
      ...tsconfig,
      include: ['app.ts', 'config', 'plugins', 'routes'],
      exclude: [...tsconfig.exclude, 'config/examples']
    })
  )
  await symlink(join(home, 'node_modules'), join(copy, 'node_modules'))
  for (const { half, entry } of deleted) {
    const { list: file, folder } = lists[half]
    const list = join(copy, file)
    const lines = (await readFile(list, 'utf8')).split('\n')
    const path = `'./${join(folder, entry)}`
    const imported = lines.filter(
      (line) => line.startsWith('import ') && [`${path}'`, `${path}/`].some((start) => line.includes(start))
    )
    const names = imported.flatMap((line) => /^import (?:\{ (.*) \}|(\w+)) from/.exec(line)!.slice(1))
    const ids = names.flatMap((name) => name?.split(', ') ?? [])
    const isOf = (line: string) =>
      ids.some((id) => new RegExp(`^  (?:${id}\\b|.*[ (]${id}(?:\\)| }|, \\{.*\\}\\)),?(?: //|$))`).test(line))
    t.equal(imported.length, 1, `${file} imports ${entry} once`)
    t.equal(lines.filter(isOf).length, ids.length, `the list has a line for ${ids.join(' and ')}`)
    await writeFile(list, lines.filter((line) => !imported.includes(line) && !isOf(line)).join('\n'))
    await rm(join(dirname(list), folder, entry), { recursive: true })
  }
  return copy
}

// The test runner gives its loaders to every child; compilers do without.
const bare = 'unset NODE_OPTIONS; exec "$0" "$@"'
const run = (tool: string, args: string[]) =>
  runToEnd('/bin/sh', ['-c', bare, process.execPath, join(home, 'node_modules', tool), ...args], { timeout: 120_000 })
// Checkers in several threads take twice the CPU.
const compiled = (copy: string) => run('typescript/bin/tsc', ['-p', join(copy, 'tsconfig.json'), '--singleThreaded'])
const gateway = (copy: string, args: string[]) => runToEnd(process.execPath, [join(copy, 'app.ts'), ...args])

const plain = `
admin: false
services: { a: { instances: [http://127.0.0.1:1] } }
routes: [{ name: one, service: a, match: { path: / } }]
`

t.test('every concern and every source of instances can be deleted', { timeout: 500_000 }, async (t) => {
  const all = await deletable()
  for (const [half, least] of [
    ['edge', 15],
    ['mesh', 15],
    ['discovery', 3]
  ] as const) {
    t.ok(all.filter((each) => each.half === half).length >= least, half)
  }
  t.ok(all.length <= choices.length, 'more of them need more copies')
  for (let i = 0; i < copies; i++) {
    const deleted = all.filter((_, index) => choices[index]! & (1 << i))
    const names = deleted.map(({ half, entry }) => `${half}/${entry}`).join(', ')
    await t.test(`copy ${i + 1}`, async (t) => {
      const copy = await copyWithout(t, deleted)
      t.match(await compiled(copy), { code: 0, stdout: '' }, `the rest compiles without ${names}`)
      const file = join(copy, 'gateway.yaml')
      await writeFile(file, plain)
      const isFixed = !deleted.some(({ entry }) => entry === 'static')
      const result = isFixed ? { code: 0, stdout: /one/ } : { code: 1, stderr: /instances: unknown key/ }
      t.match(await gateway(copy, ['routes', file]), result, `the rest runs without ${names}`)
    })
  }
})

t.test('few files know that a response can be made of several calls', { timeout: 240_000 }, async (t) => {
  const copy = await copyWithout(t, [])
  for (const path of ['routes/compose', 'config/compose', 'config/schema/compose.ts']) {
    await rm(join(copy, path), { recursive: true })
  }
  const { stdout } = await compiled(copy)
  const files = [...stdout.matchAll(/^(\S+\.ts)\(/gm)].map(([, file = '']) => file)
  const ofConfig = ['check-routes', 'complete', 'gateway-schema', 'targets'].map((name) => `config/${name}.ts`)
  const paths = files.map((file) => relative(copy, resolve(file)))
  t.strictSame([...new Set(paths)].sort(), [...ofConfig, 'routes/proxy.ts'])
})

/** Copies the helpers and the tests of concerns without those that go with the deleted ones. */
async function copyTests(copy: string, deleted: readonly Concern[]): Promise<void> {
  for (const folder of ['helpers', 'edge/concerns', 'mesh/concerns']) {
    await cp(join(home, 'test', folder), join(copy, 'test', folder), { recursive: true })
  }
  for (const { half, entry } of deleted) {
    const folder = join(copy, 'test', half, 'concerns')
    const isOfIt = (name: string) => name.startsWith(`${entry}.`) || name.startsWith(`${entry}-`)
    const own = (await readdir(folder)).filter((name) => isOfIt(name) || name === 'together.test.ts')
    for (const name of own) await rm(join(folder, name))
    await rm(join(copy, `test/helpers/${half}/${entry}-options.ts`), { force: true })
  }
}

/** Fast tests of concerns that stay. */
const kept = [
  ...['cors', 'max-forwards', 'overload-descriptors'].map((name) => `test/edge/concerns/${name}.test.ts`),
  ...['caps', 'fault', 'mirror', 'rate-limit'].map((name) => `test/mesh/concerns/${name}.test.ts`)
]

t.test('one concern of each half is deleted from a copy', { timeout: 240_000 }, async (t) => {
  const deleted: Concern[] = [
    { half: 'edge', entry: 'jwt' },
    { half: 'mesh', entry: 'hedge' }
  ]
  const copy = await copyWithout(t, deleted)
  t.match(await compiled(copy), { code: 0, stdout: '' }, 'the copy compiles')
  const lint = ['lint', `--config-path=${join(copy, '.biome.json')}`, '--vcs-enabled=false', copy]
  t.match(await run('@biomejs/biome/bin/biome', lint), { code: 0 }, 'the copy passes the linter')

  const yaml = plain.replace('path: / }', "path: / }, edge: { cors: { origin: '*' } }, mesh: { retry: {} }")
  const file = join(copy, 'gateway.yaml')
  await writeFile(file, yaml)
  t.match(await gateway(copy, ['check', file]), { code: 0, stdout: /ok, 1 route/ })
  const routes = await gateway(copy, ['routes', file])
  t.match(routes.stdout, /cors → websocket/)
  t.notMatch(routes.stdout, /jwt|hedge/)
  await writeFile(file, yaml.replace('mesh: {', 'mesh: { hedge: {},'))
  t.match(await gateway(copy, ['check', file]), { code: 1, stderr: /routes\[0\]\.mesh\.hedge: unknown key/ })
  t.notMatch((await gateway(copy, ['--help'])).stdout, /token/, 'the command of the concern is removed')

  await copyTests(copy, deleted)
  const cleared =
    'for name in $(env | grep -o "^_\\?TAP[^=]*"); do unset "$name"; done; unset NODE_OPTIONS; exec "$0" "$@"'
  const args = ['-c', cleared, process.execPath, 'test/helpers/several.ts', ...kept]
  const tests = await runToEnd('/bin/sh', args, { cwd: copy, timeout: 90_000 })
  t.equal(tests.code, 0, 'the tests of other concerns pass', {
    stderr: tests.stderr,
    failed: tests.stdout.match(/^ *not ok .*/gm)
  })
  t.equal(tests.stdout.match(/^ok .* end of test/gm)?.length, kept.length, 'all remaining tests pass')
})
