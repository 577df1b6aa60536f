// slow: installs packages
// The starter repository, as a team gets it from a tarball: written, installed, and tested by its own scripts.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
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

t.test('the starter repository is installed with the tarball', async (t) => {
  const args = ['--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund']
  t.match(await npm('install', ...args, join(folder, 'jingwei.tgz')), { code: 0 })
  const { dependencies } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  t.strictSame(dependencies, { jingwei: 'file:../jingwei.tgz' })
  t.ok(readFileSync(join(starter, 'package-lock.json')), 'the lock file is for npm ci, in CI and in the image')
})

t.test('the starter repository passes its test, type check and check', async (t) => {
  const tested = await npm('test')
  t.equal(tested.code, 0, tested.stdout)
  t.match(tested.stdout, /pass 4/)
  t.match(tested.stdout, /fail 0/)
  const types = await npm('run', 'typecheck')
  t.equal(types.code, 0, types.stdout)
  t.match(await npm('run', 'check'), { code: 0, stdout: /gateway\.yaml: ok, 2 routes, 1 service/ })
})

t.test('npm test fails with a Node that cannot run the tests', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  // Node 20's test runner finds no .ts files by itself, and passes without any.
  t.match(scripts.test, 'node --test "test/**/*.test.ts"')
})

t.test('npm start suggests a request that works, and passes SIGTERM on', async (t) => {
  const origin = createServer((_request, response) => void response.end('[]'))
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  t.teardown(() => origin.close())
  const [port, admin] = await freePorts(2)
  const gateway = await start({
    command: '/bin/sh',
    args: bare('npm', 'start'),
    cwd: starter,
    env: {
      ...process.env,
      PORT: `${port}`,
      ADMIN_PORT: `${admin}`,
      ORDERS_URL: `http://127.0.0.1:${(origin.address() as AddressInfo).port}`,
      DRAIN_DELAY: '0s'
    },
    ready: /for i in .*/
  })
  t.teardown(gateway.stop)
  const [, suggested] = /curl -i (\S+)/.exec(gateway.output()) ?? []
  t.equal((await fetch(suggested!)).status, 200)
  const refused = await fetch(`http://127.0.0.1:${port}/api/invoices`)
  t.match(await refused.json(), { statusCode: 400, code: 'TENANT_MISSING' })
  t.equal((await fetch(`http://127.0.0.1:${admin}/health/ready`)).status, 200)
  gateway.kill('SIGTERM')
  t.match(await gateway.exited, { code: 0 })
  t.match(gateway.output(), /"msg":"stopped"/)
  await t.rejects(fetch(suggested!), 'the port is closed')
})

t.test('npm run dev restarts without the drain delay', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(starter, 'package.json'), 'utf8'))
  t.match(scripts.dev, /^DRAIN_DELAY=0s exec node --watch /)
})
