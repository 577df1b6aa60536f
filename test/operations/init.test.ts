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

/** The files below a folder, in order. */
const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(folder.length + 1))
    .sort()

t.test('a starter repository is written', async (t) => {
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

t.test('no file is overwritten, and then none is written', async (t) => {
  const folder = t.testdir({ 'package.json': '{}', '.gitignore': 'mine', 'other.txt': '' })
  const { code, stdout, stderr } = await cli('init', folder)
  t.strictSame([code, stdout], [1, ''])
  t.equal(
    stderr,
    `jingwei: init ${folder}: these files exist already; nothing was written:  .gitignore, package.json; name a new folder\n`
  )
  t.strictSame(filesIn(folder), ['.gitignore', 'other.txt', 'package.json'])
  t.equal(readFileSync(join(folder, '.gitignore'), 'utf8'), 'mine')
})

t.test('what is in the way is found before a file is written', async (t) => {
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
    const expected = `jingwei: init ${at}: this file exists already; nothing was written:  ${fault}; name a new folder\n`
    t.strictSame({ code, stdout, stderr }, { code: 1, stdout: '', stderr: expected })
    t.strictSame(readdirSync(at), [before])
  }
  t.strictSame(readdirSync(join(folder, 'out')), [])
})

t.test('a link to the folder itself', async (t) => {
  const folder = t.testdir({ real: {}, link: t.fixture('symlink', 'real') })
  t.match(await cli('init', join(folder, 'link')), { code: 0 })
  t.strictSame(filesIn(join(folder, 'real')), written)
})

t.test('what was written is removed if a file cannot be', async (t) => {
  const same = { 'dot-x': '', '.x': '' } // two files of the same name
  const folder = t.testdir({ template: { a: '', b: { c: '' }, d: { e: same } }, old: { mine: '', d: {} } })
  const tried = (name: string) => init(join(folder, name), join(folder, 'template'), '1.0.0')
  await t.rejects(tried('new/deep'), { message: /^init .*deep: EEXIST/ })
  await t.rejects(tried('old'), { message: /^init .*old: EEXIST/ })
  t.strictSame(readdirSync(folder).sort(), ['old', 'template'])
  t.strictSame(readdirSync(join(folder, 'old'), { recursive: true }).sort(), ['d', 'mine'])
})

t.test('an empty name, as of a variable that is not set', async (t) => {
  const folder = t.testdir({})
  const { code, stderr } = await runToEnd(process.execPath, [join(home, 'app.ts'), 'init', ''], { cwd: folder })
  t.strictSame([code, stderr], [1, 'jingwei: init: the name of the folder is empty\n'])
  t.strictSame(readdirSync(folder), [])
})

t.test('a folder with other files', async (t) => {
  const folder = t.testdir({ '.git': {}, LICENSE: '' })
  t.equal((await cli('init', folder)).code, 0)
  t.strictSame(filesIn(folder), [...written, 'LICENSE'].sort())
  const again = await cli('init', folder)
  t.match(again, { code: 1, stderr: written.join(', ') })
})

t.test('a path that is not a folder', async (t) => {
  const folder = t.testdir({})
  const file = join(folder, 'file')
  writeFileSync(file, '')
  const { code, stderr } = await cli('init', file)
  t.equal(code, 1)
  t.match(stderr, `init ${file}: `)
  t.match(await cli('init', join(folder, 'a'), 'b'), { code: 1, stderr: /init: unexpected argument "b"/ })
  t.notOk(existsSync(join(folder, 'a')))
})

t.test('names that npm does not accept', async (t) => {
  const folder = t.testdir({})
  for (const [name, expected] of [['jingwei', 'gateway'], ['泾渭', 'gateway'], ['.Edge_1', 'edge_1']] as const) {
    await cli('init', join(folder, name))
    t.equal(JSON.parse(readFileSync(join(folder, name, 'package.json'), 'utf8')).name, expected)
  }
}) // biome-ignore format: a table
