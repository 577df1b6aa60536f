// slow: starts a gateway for each command
// slow: starts the command many times
// jingwei init, from the checkout. test/package/starter.test.ts has the starter itself, from a package.
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import t from 'tap'
import { version } from '../../plugins/operations/about.ts'
import { init } from '../../plugins/operations/init.ts'
import { runToEnd } from '../helpers/processes.ts'

const home = resolve(import.meta.dirname, '../..')
const cli = (...args: string[]) => runToEnd(process.execPath, [join(home, 'app.ts'), ...args])

const written = [
  '.dockerignore',
  '.github/workflows/ci.yml',
  '.gitignore',
  'Dockerfile',
  'README.md',
  'gateway.yaml',
  'package.json',
  'plugins/tenant.ts',
  'test/gateway.test.ts',
  'tsconfig.json'
]

/** Files that may exist. */
const common = ['.gitignore', 'README.md', 'package.json', 'tsconfig.json']

/** The files below a folder, in order. */
const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1))
    .sort()

t.test('init writes a starter repository', async (t) => {
  const folder = join(t.testdir({}), 'My Gateway')
  const { code, stdout, stderr } = await cli('init', folder)
  t.strictSame([code, stderr], [0, ''])
  t.strictSame(filesIn(folder), written)
  t.match(stdout, `npm install ./vendor/jingwei-${version}.tgz`)
  t.match(stdout, 'npm test')
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  t.equal(manifest.name, 'my-gateway')
  t.strictSame(manifest.dependencies, { jingwei: version })
  const own = JSON.parse(readFileSync(join(home, 'package.json'), 'utf8'))
  for (const [name, range] of Object.entries(manifest.devDependencies)) {
    t.equal(range, own.dependencies[name] ?? own.devDependencies[name], `the version of ${name} is the gateway's`)
  }
  for (const file of written) t.notMatch(readFileSync(join(folder, file), 'utf8'), /%[A-Z]+%/, file)
  t.match(await cli('check', join(folder, 'gateway.yaml')), { code: 0, stdout: /ok, 2 routes, 1 service/ })
})

t.test('init writes nothing if a file exists', async (t) => {
  const folder = t.testdir({ 'package.json': '{}', '.gitignore': 'mine', 'gateway.yaml': '', 'other.txt': '' })
  const { code, stdout, stderr } = await cli('init', folder)
  t.strictSame([code, stdout], [1, ''])
  t.equal(
    stderr,
    `jingwei: init ${folder}: this file exists already; nothing was written: gateway.yaml; name a new folder\n`
  )
  t.strictSame(filesIn(folder), ['.gitignore', 'gateway.yaml', 'other.txt', 'package.json'])
  t.equal(readFileSync(join(folder, '.gitignore'), 'utf8'), 'mine')
  t.equal(readFileSync(join(folder, 'package.json'), 'utf8'), '{}')
})

t.test('init finds obstacles before it writes a file', async (t) => {
  const folder = t.testdir({ out: {} })
  const within = (name: string) => {
    mkdirSync(join(folder, name))
    return (path: string) => join(folder, name, path)
  }
  const file = within('file')
  writeFileSync(file('test'), 'mine')
  const link = within('link')
  symlinkSync('../nowhere.yaml', link('gateway.yaml'))
  const outside = within('outside')
  symlinkSync('../out', outside('plugins'))
  const faults = { file: 'test (not a folder)', link: 'gateway.yaml', outside: 'plugins (not a folder)' }
  for (const [name, fault] of Object.entries(faults)) {
    const at = join(folder, name)
    const [before] = readdirSync(at)
    const { code, stdout, stderr } = await cli('init', at)
    const expected = `jingwei: init ${at}: this file exists already; nothing was written: ${fault}; name a new folder\n`
    t.strictSame({ code, stdout, stderr }, { code: 1, stdout: '', stderr: expected })
    t.strictSame(readdirSync(at), [before])
  }
  t.strictSame(readdirSync(join(folder, 'out')), [])
})

t.test('init accepts a link to a folder', async (t) => {
  const folder = t.testdir({ real: {}, link: t.fixture('symlink', 'real') })
  t.match(await cli('init', join(folder, 'link')), { code: 0 })
  t.strictSame(filesIn(join(folder, 'real')), written)
})

t.test('init removes what it wrote if a file cannot be written', async (t) => {
  const same = { 'dot-x': '', '.x': '' } // two files of the same name
  const folder = t.testdir({ template: { a: '', b: { c: '' }, d: { e: same } }, old: { mine: '', d: {} } })
  const tried = (name: string) => init(join(folder, name), join(folder, 'template'), '1.0.0')
  await t.rejects(tried('new/deep'), { message: /^init .*deep: EEXIST/ })
  await t.rejects(tried('old'), { message: /^init .*old: EEXIST/ })
  t.strictSame(readdirSync(folder).sort(), ['old', 'template'])
  t.strictSame(readdirSync(join(folder, 'old'), { recursive: true }).sort(), ['d', 'mine'])
})

t.test('init refuses an empty name, as of a variable that is not set', async (t) => {
  const folder = t.testdir({})
  const { code, stderr } = await runToEnd(process.execPath, [join(home, 'app.ts'), 'init', ''], { cwd: folder })
  t.strictSame([code, stderr], [1, 'jingwei: init: the name of the folder is empty\n'])
  t.strictSame(readdirSync(folder), [])
})

t.test('init writes into a folder with other files', async (t) => {
  const folder = t.testdir({ '.git': {}, LICENSE: '' })
  t.equal((await cli('init', folder)).code, 0)
  t.strictSame(filesIn(folder), [...written, 'LICENSE'].sort())
  const again = await cli('init', folder)
  t.match(again, { code: 1, stderr: written.filter((name) => !common.includes(name)).join(', ') })
})

t.test('a package.json as npm writes it with the first package gets what it lacks', async (t) => {
  const own =
    '{\n    "dependencies": {\n        "jingwei": "file:jingwei-0.1.0.tgz",\n        "fastify": "5.0.0"\n    }\n}\n'
  const folder = t.testdir({ 'package.json': own, node_modules: { x: { 'index.js': '' } }, 'package-lock.json': '{}' })
  const { code, stdout, stderr } = await cli('init', folder)
  t.strictSame([code, stderr], [0, ''])
  t.match(stdout, /: wrote \.dockerignore, .*gateway\.yaml, plugins/)
  t.match(
    stdout,
    '\npackage.json: added type, engines.node, scripts.start, scripts.dev, scripts.check, scripts.typecheck, scripts.test, devDependencies.@types/node, devDependencies.typescript\n\nNext:\n'
  )
  t.notMatch(stdout, 'kept')
  const text = readFileSync(join(folder, 'package.json'), 'utf8')
  t.match(
    text,
    /^\{\n {4}"dependencies": \{\n {8}"jingwei": "file:jingwei-0\.1\.0\.tgz",\n {8}"fastify": "5\.0\.0"\n {4}\},\n {4}"type": "module",/
  )
  t.ok(text.endsWith('}\n'))
  const starter = JSON.parse(readFileSync(join(home, 'config/starter/package.json'), 'utf8'))
  t.match(JSON.parse(text), { scripts: starter.scripts, engines: starter.engines })
  t.notOk('fastify' in JSON.parse(text).devDependencies, 'which is a dependency already')
  t.strictSame(
    filesIn(folder).filter((file) => file.startsWith('package.json')),
    ['package.json']
  )
})

t.test('a package.json with values of its own keeps them, and the output lists those that differ', async (t) => {
  const own = {
    name: 'shop',
    version: '2.0.0',
    type: 'module',
    scripts: { start: 'node server.js', test: 'echo "Error: no test specified" && exit 1', lint: 'biome' },
    engines: { node: '>=24.2' },
    peerDependencies: { typescript: '*' }
  }
  const folder = t.testdir({ 'package.json': JSON.stringify(own), 'server.js': '' })
  const { code, stdout } = await cli('init', folder)
  t.equal(code, 0)
  t.match(stdout, "\npackage.json: kept your scripts.start, which differ from the starter's\n")
  t.match(
    stdout,
    /package\.json: added scripts\.dev, scripts\.check, scripts\.typecheck, scripts\.test, dependencies\.jingwei, devDep/
  )
  const { scripts, devDependencies, ...rest } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'))
  t.match(scripts, { start: 'node server.js', lint: 'biome', test: /^node --test/ })
  t.notOk('typescript' in devDependencies)
  const { scripts: _scripts, ...kept } = own
  t.strictSame(rest, { ...kept, dependencies: { jingwei: version } })
})

t.test(
  'a project keeps its own README.md, .gitignore and tsconfig.json, and the next steps are true for it',
  async (t) => {
    const scripts = { start: 'node server.js', test: 'echo hi' }
    const own = { type: 'module', scripts, dependencies: { fastify: '^4' } }
    const mine = { '.gitignore': 'mine', 'README.md': '# mine', 'tsconfig.json': '{}' }
    const folder = t.testdir({ ...mine, 'package.json': JSON.stringify(own) })
    const { code, stdout, stderr } = await cli('init', folder)
    t.strictSame([code, stderr], [0, ''])
    for (const [name, text] of Object.entries(mine)) t.equal(readFileSync(join(folder, name), 'utf8'), text)
    t.strictSame(filesIn(folder), written)
    t.match(stdout, `: wrote ${written.filter((name) => !common.includes(name)).join(', ')}\n`)
    t.match(stdout, '\nleft your .gitignore, README.md, tsconfig.json as they were\n')
    t.match(stdout, "\npackage.json: your fastify is ^4, and the starter's plugin needs fastify 5\n")
    t.match(stdout, '\npackage.json: your npm test is what CI runs: let it also run node --test "test/**/*.test.ts"\n')
    t.match(stdout, /^ {2}node --test "test\/\*\*\/\*\.test\.ts" {2}tests the gateway/m)
    t.match(stdout, /^ {2}npm run check {8}reports/m)
    t.match(stdout, /^ {2}npx jingwei start {4}starts the gateway/m)
    t.notMatch(stdout, /npm start|npm test {2}/)
  }
)

t.test('a package.json that the starter cannot work with is a conflict, and no file is written', async (t) => {
  const needs = 'the starter needs "type": "module"'
  const cases: [text: string, more: object, conflict: string][] = [
    ['{ "type": "commonjs" }', {}, `its "type" is "commonjs", and ${needs}: npm pkg set type=module`],
    ['{}', { lib: { 'old.js': '' } }, `it has no "type", and ${needs}, by which lib/old.js becomes an ES module`],
    ['{,}', {}, 'not a JSON object as npm expects it'],
    ['[]', {}, 'not a JSON object as npm expects it'],
    ['{ "type": "module", "scripts": 5 }', {}, 'not a JSON object as npm expects it']
  ]
  for (const [text, more, conflict] of cases) {
    const folder = t.testdir({ 'package.json': text, 'tsconfig.json': '{}', ...more })
    const before = filesIn(folder)
    t.strictSame(await cli('init', folder), {
      code: 1,
      stdout: '',
      stderr: `jingwei: init ${folder}: this file exists already; nothing was written: package.json (${conflict}); name a new folder\n`
    })
    t.strictSame(filesIn(folder), before)
    t.equal(readFileSync(join(folder, 'package.json'), 'utf8'), text)
  }
  const linked = t.testdir({ 'real.json': '{}', 'package.json': t.fixture('symlink', 'real.json') })
  t.match(await cli('init', linked), {
    code: 1,
    stderr: /this file exists already; nothing was written: package\.json; /
  })
})

t.test('a package.json is as it was if a file cannot be written', async (t) => {
  const same = { 'dot-x': '', '.x': '' } // two files of the same name
  const template = { 'package.json': '{ "scripts": { "start": "jingwei" } }', z: same }
  const folder = t.testdir({ template, own: { 'package.json': '{}' } })
  await t.rejects(init(join(folder, 'own'), join(folder, 'template'), '1.0.0'), { message: /EEXIST/ })
  t.strictSame(filesIn(join(folder, 'own')), ['package.json'])
  t.equal(readFileSync(join(folder, 'own/package.json'), 'utf8'), '{}')
})

t.test('init refuses a path that is not a folder', async (t) => {
  const folder = t.testdir({})
  const file = join(folder, 'file')
  writeFileSync(file, '')
  const { code, stderr } = await cli('init', file)
  t.equal(code, 1)
  t.match(stderr, `init ${file}: `)
  t.match(await cli('init', join(folder, 'a'), 'b'), { code: 1, stderr: /init: unexpected argument "b"/ })
  t.notOk(existsSync(join(folder, 'a')))
})

t.test('init replaces names that npm does not accept', async (t) => {
  const folder = t.testdir({})
  for (const [name, expected] of [['jingwei', 'gateway'], ['泾渭', 'gateway'], ['.Edge_1', 'edge_1']] as const) {
    await cli('init', join(folder, name))
    t.equal(JSON.parse(readFileSync(join(folder, name, 'package.json'), 'utf8')).name, expected)
  }
}) // biome-ignore format: a table
