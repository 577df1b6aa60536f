// slow: installs packages
// The starter repository, as a team gets it from a tarball: written, installed, and tested by its own scripts.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { freePorts, start } from '../helpers/processes.ts'
import { bare, install } from './installed.ts'

t.setTimeout(300_000)

const empty = mkdtempSync(join(tmpdir(), 'jingwei-starter-'))
t.teardown(() => rmSync(empty, { recursive: true }))
const { folder, run } = await install(t, empty)
const starter = join(folder, 'my-gateway')
const npm = (...args: string[]) => run('/bin/sh', '-c', 'cd my-gateway && exec npm "$@"', 'npm', ...args)

t.test('npx jingwei init', async (t) => {
  const { code, stdout, stderr } = await run('npx', 'jingwei', 'init', 'my-gateway')
  t.strictSame([code, stderr], [0, ''])
  for (const file of ['.gitignore', '.dockerignore', '.github/workflows/ci.yml']) t.match(stdout, file)
  t.match(await run('npx', 'jingwei', 'init', 'my-gateway'), { code: 1, stderr: /nothing was written/ })
  const { dependencies } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  const { stdout: version } = await run('npx', 'jingwei', '--version')
  t.strictSame(dependencies, { jingwei: version.trim() })
})

t.test('it is installed with the tarball', async (t) => {
  const args = ['--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund']
  t.match(await npm('install', ...args, join(folder, 'jingwei.tgz')), { code: 0 })
  const { dependencies } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  t.strictSame(dependencies, { jingwei: 'file:../jingwei.tgz' })
  t.ok(readFileSync(join(starter, 'package-lock.json')), 'for npm ci, in CI and in the image')
})

t.test('it passes its own test, its types and its check', async (t) => {
  const tested = await npm('test')
  t.equal(tested.code, 0, tested.stdout)
  t.match(tested.stdout, /pass 4/)
  t.match(tested.stdout, /fail 0/)
  const types = await npm('run', 'typecheck')
  t.equal(types.code, 0, types.stdout)
  t.match(await npm('run', 'check'), { code: 0, stdout: /gateway\.yaml: ok, 1 route, 1 service/ })
})

t.test('with a Node that cannot run the tests, they fail', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  // Node 20's test runner finds no .ts files by itself, and passes without any.
  t.match(scripts.test, 'node --test "test/**/*.test.ts"')
})

t.test('it starts', async (t) => {
  const [port, admin] = await freePorts(2)
  const { scripts } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  const [program, ...args] = scripts.start.split(' ')
  t.equal(program, 'jingwei')
  // Without npm in between, which would leave the gateway behind.
  const gateway = await start({
    command: '/bin/sh',
    args: bare('node_modules/.bin/jingwei', ...args),
    cwd: starter,
    env: { ...process.env, PORT: `${port}`, ADMIN_PORT: `${admin}` },
    ready: /jingwei \S+ is up/
  })
  t.teardown(gateway.stop)
  const response = await fetch(`http://127.0.0.1:${port}/api/orders`)
  t.match(await response.json(), { statusCode: 400, code: 'TENANT_MISSING' })
  t.equal((await fetch(`http://127.0.0.1:${admin}/health/ready`)).status, 200)
  gateway.kill('SIGTERM')
  t.match(await gateway.exited, { code: 0 })
})
