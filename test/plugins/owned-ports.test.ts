// slow: takes about 19 s
/** Plugins that own a port: it stays open over reloads, and the commands do not open it. */
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { folder } from '../helpers/plugins.ts'
import { freePort, runToEnd, start } from '../helpers/processes.ts'

t.setTimeout(100_000)

const root = join(import.meta.dirname, '../..')
const example = join(root, 'config/gateway.yaml')
const app = join(root, 'app.ts')

/** Starts a gateway in its own process, on free ports. */
async function gatewayOn(t: Test, file: string) {
  const names = ['PORT', 'ADMIN_PORT', 'ORDERS_PORT', 'ORDERS_PORT_2', 'PRODUCTS_PORT', 'USERS_PORT', 'OWNED_PORT']
  const ports: Record<string, string> = {}
  for (const name of names) ports[name] = String(await freePort())
  const env = { ...process.env, ...ports }
  const gateway = await start({
    command: process.execPath,
    args: [app, '--config', file],
    env,
    ready: /jingwei is up/
  })
  t.teardown(() => gateway.stop())
  const reload = async () => {
    const response = await fetch(`http://127.0.0.1:${ports.ADMIN_PORT}/admin/reload`, { method: 'POST' })
    return { status: response.status, text: await response.text() }
  }
  const ask = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${ports.PORT}${path}`)
    return { status: response.status, text: await response.text() }
  }
  const run = (...args: string[]) => runToEnd(process.execPath, [app, ...args], { env })
  return { gateway, ports, reload, ask, run }
}

t.test('the configuration of npm start can be reloaded, and checked while the gateway runs', async (t) => {
  const { gateway, ports, reload, ask, run } = await gatewayOn(t, example)
  for (let count = 0; count < 3; count++) {
    t.match(await reload(), { status: 200 })
    t.match(await ask('/api/orders'), { status: 200, text: /"service":"orders"/ })
  }
  gateway.kill('SIGHUP')
  await eventually(() => gateway.output().includes('"cause":"SIGHUP"'), 'a reload by SIGHUP')
  t.match(gateway.output(), /"cause":"SIGHUP".*configuration reloaded/)
  for (const name of ['ORDERS_PORT', 'ORDERS_PORT_2', 'PRODUCTS_PORT', 'USERS_PORT']) {
    t.equal((await fetch(`http://127.0.0.1:${ports[name]}/x`)).status, 200, `${name} after reloads`)
  }
  t.match(await run('check', example), { code: 0, stdout: /: ok, 3 routes, 3 services/ })
  t.match(await run('routes', example), { code: 0 })
  t.match(await run('explain', example, 'GET', '/api/orders'), { code: 0 })
  gateway.kill('SIGTERM')
  t.same(await gateway.exited, { code: 0, signal: null }, 'the services of the example do not delay the shutdown')
})

t.test(
  'the port of the guide follows reloads, a port in use rejects a reload, and the commands do not open it',
  async (t) => {
    const guide = readFileSync(join(root, 'plugins/README.md'), 'utf8')
    const [, block] = /```ts\n(\/\/ plugin\n(?:(?!```)[\s\S])*status-port\.server[\s\S]*?)```/.exec(guide)!
    const folderOf = await folder(t, { 'status-port.ts': block! })
    const file = join(folderOf, 'gateway.yaml')
    const write = (options: object) =>
      writeFileSync(
        file,
        `listen: { host: 127.0.0.1, port: $\{PORT}, drain: { delay: 0s } }
admin: { port: $\{ADMIN_PORT} }
plugins: [{ path: ./status-port.ts, options: ${JSON.stringify(options)} }]
`
      )
    const [port, other] = [await freePort(), await freePort()]
    const textOf = async (port: number) => (await fetch(`http://127.0.0.1:${port}`)).text()
    write({ port, text: 'one' })
    const { reload, run } = await gatewayOn(t, file)
    t.equal(await textOf(port), 'one')
    for (const args of [
      ['check', file],
      ['routes', file],
      ['explain', file, 'GET', '/']
    ]) {
      t.match(await run(...args), { code: 0, stderr: '' }, args.join(' '))
    }
    write({ port, text: 'two' })
    t.match(await reload(), { status: 200 })
    while ((await textOf(port)) !== 'two') await sleep(5)

    const holder = createServer().listen(other, '127.0.0.1')
    t.teardown(() => holder.close())
    await once(holder, 'listening')
    write({ port: other, text: 'three' })
    t.match(await reload(), { status: 422, text: /failed to start: listen EADDRINUSE/ })
    t.equal(await textOf(port), 'two', 'the running configuration still serves')
    await new Promise((resolve) => holder.close(resolve))
    t.match(await reload(), { status: 200 })
    t.equal(await textOf(other), 'three')
    const isOpen = () =>
      textOf(port).then(
        () => true,
        () => false
      )
    while (await isOpen()) await sleep(5)
  }
)

t.test('the commands run no onListen hook, and plugins see `dryRun`', async (t) => {
  const folderOf = await folder(t, {
    'says.mjs': `export default async function says(fastify) {
      const say = (what) => process.stderr.write(what + ' ' + fastify.dryRun + '\\n')
      for (const name of ['onReady', 'onListen']) fastify.addHook(name, async () => say(name))
      say('plugin')
    }`,
    'gateway.yaml': 'listen: { port: 0 }\nadmin: false\nplugins: [{ path: ./says.mjs }]\n'
  })
  const file = join(folderOf, 'gateway.yaml')
  const run = (...args: string[]) => runToEnd(process.execPath, [app, ...args])
  t.match(await run('check', file), { code: 0, stderr: 'plugin true\nonReady true\n' })
  t.match(await run('routes', file), { code: 0, stderr: 'plugin true\n' })
  t.match(await run('explain', file, 'GET', '/'), { code: 0, stderr: 'plugin true\n' })
})
