// slow: takes about 7 s
/** Faults that a reload survives: unreadable files, gateways that fail late, clients that exceed limits. */
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { rmSync, writeFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import http from 'node:http'
import { connect } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'
import { eventually } from '../helpers/eventually.ts'
import { startService } from '../helpers/gateway.ts'
import { freePort } from '../helpers/processes.ts'
import { startFrom } from './support.ts'

t.setTimeout(60_000)

async function running(t: Test, sections: object, files: Record<string, string> = {}) {
  const { runtime, file, write, port, adminPort } = await startFrom(t, sections, files)
  // A plugin that fails to close is asserted by the test itself.
  t.teardown(() => runtime.close().catch(() => {}))
  const get = async (path: string) => {
    const sent = http.get({ host: '127.0.0.1', port, path, agent: false })
    const [response] = (await once(sent, 'response')) as [http.IncomingMessage]
    return response
  }
  const status = async (path: string) => (await get(path)).resume().statusCode
  const reload = (sections: object) => {
    write(sections)
    return runtime.reload('test')
  }
  const series = async (start: string) => {
    const text = await (await fetch(`http://127.0.0.1:${adminPort}/metrics`)).text()
    return text.split('\n').filter((line) => line.startsWith(start))
  }
  return { runtime, file, get, status, reload, series, adminPort, write }
}

/** Responds at once; `/stream` is a body that the test ends. */
async function service(t: Test) {
  const streams: ServerResponse[] = []
  const { url, close } = await startService((request, response) => {
    if (!request.url!.startsWith('/stream')) return void response.end('ok')
    response.write('begin')
    streams.push(response)
  })
  t.teardown(close)
  return { url, streams }
}

const route = (name: string, service: string) => ({ name, match: { path: `/${name}` }, service })

t.test('the admin port responds to upgrade requests, and keeps no connection open', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  for (const protocol of ['h2c', 'websocket']) {
    const socket = connect(gateway.adminPort, '127.0.0.1')
    socket.write(`GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: ${protocol}\r\n\r\n`)
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    t.match(chunk.toString(), /^HTTP\/1\.1 200 /, protocol)
    socket.destroy()
    t.ok((await gateway.reload(good)).applied)
  }
})

t.test('with too many draining configurations, the oldest is closed, with its streams', async (t) => {
  const { url, streams } = await service(t)
  const sections = (i: number) => ({
    services: { a: { instances: [url] } },
    routes: [route('stream', 'a')],
    plugins: [{ path: './closes.mjs', options: { i } }]
  })
  const closed: number[] = []
  Object.assign(globalThis, { closedConfigurations: closed })
  t.teardown(() => Reflect.deleteProperty(globalThis, 'closedConfigurations'))
  const gateway = await running(t, sections(0), {
    'closes.mjs': `export default async (fastify, { i }) => {
      fastify.addHook('onClose', async () => { globalThis.closedConfigurations.push(i) })
    }`
  })
  const aborted: number[] = []
  for (let i = 1; i <= 52; i++) {
    const response = (await gateway.get('/stream')).resume()
    response.once('error', () => aborted.push(i - 1))
    t.teardown(() => response.destroy())
    t.ok((await gateway.reload(sections(i))).applied)
  }
  await eventually(() => closed.length >= 2, 'the end of two configurations')
  await sleep(200)
  t.same(closed, [0, 1])
  t.same(aborted, [0, 1])
  for (const stream of streams) stream.end()
})

t.test('a configuration of many routes waits for its last requests, too', async (t) => {
  const { url, streams } = await service(t)
  const many = Array.from({ length: 10_001 }, (_, i) => route(`r${i}`, 'a'))
  const few = { services: { a: { instances: [url] } }, routes: [route('stream', 'a')] }
  const gateway = await running(t, { ...few, routes: [...few.routes, ...many] })
  const before = gateway.runtime.gateway!
  let closed = false
  const response = await gateway.get('/stream')
  t.ok((await gateway.reload(few)).applied)
  void before.close().then(() => {
    closed = true
  })
  await sleep(100)
  t.notOk(closed)
  for (const stream of streams) stream.end('end')
  t.equal((await response.setEncoding('utf8').toArray()).join(''), 'beginend')
})

t.test('a service that is added again while its last configuration ends is counted', async (t) => {
  const { url, streams } = await service(t)
  const services = { a: { instances: [url] }, b: { instances: [url] } }
  const both = { services, routes: [route('stream', 'a'), route('one', 'b')] }
  const gateway = await running(t, both, {
    'slow.mjs': `export default async (fastify) => {
      fastify.addHook('onReady', () => new Promise((resolve) => { globalThis.goOn = resolve }))
    }`
  })
  t.teardown(() => Reflect.deleteProperty(globalThis, 'goOn'))
  const first = gateway.runtime.gateway!
  const response = await gateway.get('/stream')
  t.ok((await gateway.reload({ services: { a: services.a }, routes: [route('stream', 'a')] })).applied)
  const reloaded = gateway.reload({ ...both, plugins: [{ path: './slow.mjs' }] })
  await eventually(() => 'goOn' in globalThis, 'the next gateway')
  for (const stream of streams) stream.end()
  await response.resume().toArray()
  await first.close()
  await sleep(100)
  ;(Reflect.get(globalThis, 'goOn') as () => void)()
  t.ok((await reloaded).applied)
  t.equal(await gateway.status('/one'), 200)
  t.same(await gateway.series('jingwei_mesh_attempts_total{service="b",outcome="success"}'), [
    'jingwei_mesh_attempts_total{service="b",outcome="success"} 1'
  ])
})

t.test('a failed configuration leaves no resources of its plugins and no series', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const state = { opened: 0, closed: 0 }
  Object.assign(globalThis, { stateOfLate: state })
  t.teardown(() => Reflect.deleteProperty(globalThis, 'stateOfLate'))
  const gateway = await running(t, good, {
    'late.mjs': `export default async (fastify) => {
      globalThis.stateOfLate.opened++
      fastify.addHook('onClose', async () => { globalThis.stateOfLate.closed++ })
      fastify.admin.addHook('onReady', async () => { throw new Error('late') })
    }`
  })
  const services = { ...good.services, b: { instances: [url] } }
  const { applied, faults } = await gateway.reload({
    services,
    routes: [route('one', 'a'), route('two', 'b')],
    plugins: [{ path: './late.mjs' }]
  })
  t.notOk(applied)
  t.match(faults, [{ message: /late/ }])
  t.same(state, { opened: 1, closed: 1 })
  t.same(await gateway.series('jingwei_mesh_attempts_total{service="b"'), [])
  t.equal(await gateway.status('/one'), 200)
})

t.test('a pipe in place of the file is refused, without blocking', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  rmSync(gateway.file)
  execFileSync('mkfifo', [gateway.file])
  const { applied, faults } = await gateway.runtime.reload('test')
  t.notOk(applied)
  t.match(faults, [{ message: /not a regular file/ }])
  t.equal(await gateway.status('/one'), 200)
  rmSync(gateway.file)
  t.ok((await gateway.reload(good)).applied)
})

const failsToClose = `export default async (fastify) => {
  fastify.addHook('onClose', async () => { throw new Error('no end') })
}`

t.test('a plugin that fails to close aborts no request of a former configuration', async (t) => {
  const { url, streams } = await service(t)
  const sections = { services: { a: { instances: [url] } }, routes: [route('stream', 'a')] }
  const gateway = await running(t, sections, { 'fails.mjs': failsToClose })
  const response = await gateway.get('/stream')
  t.ok((await gateway.reload({ ...sections, plugins: [{ path: './fails.mjs' }] })).applied)
  let closed = false
  const close = gateway.runtime.close().finally(() => {
    closed = true
  })
  const failed = t.rejects(close, { message: 'plugin fails failed in onClose: no end' })
  await gateway.runtime.gateway!.close().catch(() => {})
  await sleep(50)
  t.notOk(closed)
  for (const stream of streams) stream.end('end')
  t.equal((await response.setEncoding('utf8').toArray()).join(''), 'beginend')
  await failed
})

t.test('a shutdown does not wait for the services of a reload', async (t) => {
  const { url } = await service(t)
  const discovery = { consul: { url: 'http://127.0.0.1:1' } }
  const sections = { discovery, services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, sections, {
    'tells.mjs': `export default async (fastify) => {
      fastify.addHook('onReady', async () => { globalThis.isBuilt = true })
    }`
  })
  t.teardown(() => Reflect.deleteProperty(globalThis, 'isBuilt'))
  const services = { ...sections.services, missing: {} }
  const reloaded = gateway.reload({ ...sections, services, plugins: [{ path: './tells.mjs' }] })
  await eventually(() => 'isBuilt' in globalThis, 'the next gateway')
  await sleep(200)
  await gateway.runtime.close()
  const { applied, faults, durationMs } = await reloaded
  t.notOk(applied)
  t.match(faults, [{ message: 'the gateway is stopping' }])
  t.ok(durationMs < 10_000, 'less than the time that services have')
})

t.test('a failed start reports its cause, also if the cleanup fails', async (t) => {
  const port = await freePort()
  const taken = http.createServer().listen(port, '127.0.0.1')
  t.teardown(() => taken.close())
  await once(taken, 'listening')
  const folder = t.testdir({ 'fails.mjs': failsToClose })
  const file = join(folder, 'gateway.yaml')
  const plugins = [{ path: './fails.mjs' }]
  writeFileSync(file, JSON.stringify({ listen: { host: '127.0.0.1', port }, admin: false, plugins }))
  await t.rejects(start(await loadConfig(file)), { message: /cannot listen on/ })
})
