// slow: takes about 38 s
/** Reloads of the configuration of a running gateway: changes, requests in flight, and failed reloads. */
import { once } from 'node:events'
import { readFileSync, unlinkSync } from 'node:fs'
import http from 'node:http'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../helpers/eventually.ts'
import { startService } from '../helpers/gateway.ts'
import { freePort } from '../helpers/processes.ts'
import { startFrom } from './support.ts'

t.setTimeout(100_000)

interface Reply {
  readonly status: number
  readonly text: string
  readonly headers: http.IncomingHttpHeaders
}

/** A running gateway, its file, and a client with one connection. */
async function running(t: Test, sections: object, files: Record<string, string> = {}) {
  const { runtime, file, folder, write, port, adminPort } = await startFrom(t, sections, files)
  t.teardown(() => runtime.close())
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  t.teardown(() => agent.destroy())
  const request = (path: string, options: http.RequestOptions = {}) =>
    http.request({ host: '127.0.0.1', port, path, agent, ...options })
  const ask = async (path: string, options: http.RequestOptions = {}): Promise<Reply> => {
    const sent = request(path, options).end()
    const [response] = (await once(sent, 'response')) as [http.IncomingMessage]
    const chunks: Buffer[] = await response.toArray()
    return { status: response.statusCode!, text: Buffer.concat(chunks).toString(), headers: response.headers }
  }
  const admin = `http://127.0.0.1:${adminPort}`
  const reload = async (sections?: object) => {
    if (sections !== undefined) write(sections)
    const response = await fetch(`${admin}/admin/reload`, { method: 'POST' })
    return { status: response.status, body: (await response.json()) as Record<string, unknown> }
  }
  const metric = async (name: string) => {
    const text = await (await fetch(`${admin}/metrics`)).text()
    return text
      .split('\n')
      .find((line) => line.startsWith(name))
      ?.split(' ')
      .at(-1)
  }
  return { runtime, file, write, ask, request, reload, metric, admin, port, folder }
}

async function service(t: Test, name = 'ok') {
  const connections = new Set<unknown>()
  const streams = new Set<http.ServerResponse>()
  const { url, close } = await startService((request, response) => {
    connections.add(request.socket)
    if (request.url!.startsWith('/stream')) {
      response.write('begin;')
      streams.add(response)
    } else if (request.method === 'POST') {
      request.setEncoding('latin1')
      let length = 0
      request.on('data', (chunk: string) => {
        length += chunk.length
      })
      request.on('end', () => response.end(`${length}`))
    } else response.end(name)
  })
  t.teardown(close)
  return { url, connections, streams }
}

const route = (name: string, service: string, more: object = {}) => ({
  name,
  match: { path: `/${name}` },
  service,
  ...more
})

t.test('routes are added and removed from the next request on, on open connections', async (t) => {
  const { url, connections } = await service(t)
  const services = { a: { instances: [url] } }
  const gateway = await running(t, { services, routes: [route('one', 'a'), route('two', 'a')] })
  let clients = 0
  gateway.runtime.listeners[0]!.server.on('connection', () => clients++)
  t.equal((await gateway.ask('/two')).status, 200)
  const { status, body } = await gateway.reload({ services, routes: [route('one', 'a'), route('three', 'a')] })
  t.equal(status, 200)
  t.match(body, { hash: /^[0-9a-f]{16}$/, warnings: [], waitingFor: [] })
  t.equal((await gateway.ask('/two')).status, 404)
  t.match(await gateway.ask('/three'), { status: 200, text: 'ok' })
  t.equal(clients, 1)
  t.equal(connections.size, 1, 'the service was dialled once')
  t.equal(await gateway.metric(`jingwei_config_info{hash="${String(body.hash)}"}`), '1')
  const routes = (await (await fetch(`${gateway.admin}/admin/routes`)).json()) as { name: string }[]
  t.same(
    routes.map(({ name }) => name),
    ['one', 'three']
  )
})

t.test('requests in flight, streams and uploads complete with the old configuration', async (t) => {
  const { url, streams } = await service(t)
  const services = { a: { instances: [url] } }
  const gateway = await running(t, { services, routes: [route('stream', 'a'), route('up', 'a')] })
  const open = (path: string, method: string) => gateway.request(path, { method, agent: false })
  const stream = open('/stream', 'GET').end()
  const [response] = (await once(stream, 'response')) as [http.IncomingMessage]
  const upload = open('/up', 'POST')
  upload.write('x'.repeat(1000))
  await eventually(() => streams.size === 1, 'the request of the stream')
  const before = gateway.runtime.gateway!
  for (let i = 0; i < 3; i++) t.equal((await gateway.reload({ services, routes: [route('other', 'a')] })).status, 200)
  t.equal((await gateway.ask('/stream')).status, 404)
  upload.end('y'.repeat(1000))
  const [uploaded] = (await once(upload, 'response')) as [http.IncomingMessage]
  t.equal(String(await uploaded.setEncoding('utf8').toArray()), '2000')
  t.not(before.mesh.service('a').active, 0)
  for (const each of streams) each.end('end')
  t.equal((await response.setEncoding('utf8').toArray()).join(''), 'begin;end')
  await eventually(() => !before.hasDecorator('stores') || before.inFlight.isEmpty, 'the end of the first')
})

t.test('a configuration with faults changes nothing, and is reported with file, line and column', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  t.equal(await gateway.metric('jingwei_config_last_reload_success'), '1')
  const loadedAt = await gateway.metric('jingwei_config_last_reload_timestamp_seconds')
  const { hash } = gateway.runtime.config
  const { status, body } = await gateway.reload({ ...good, routes: [route('two', 'nowhere')] })
  t.equal(status, 422)
  t.match(body, {
    statusCode: 422,
    hash,
    faults: [{ file: gateway.file, line: 1, column: Number, path: 'routes[0].service' }]
  })
  t.equal((await gateway.ask('/one')).status, 200)
  t.equal(await gateway.metric('jingwei_config_last_reload_success'), '0')
  t.equal(await gateway.metric('jingwei_config_last_reload_timestamp_seconds'), loadedAt)
  t.equal(await gateway.metric(`jingwei_config_info{hash="${hash}"}`), '1')
  t.equal((await gateway.reload(good)).status, 200)
  t.equal(await gateway.metric('jingwei_config_last_reload_success'), '1')
})

t.test('a change that needs a restart is refused, with the name of its key', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const port = await freePort()
  const changes: [key: string, sections: object][] = [
    ['listen.port', { listen: { host: '127.0.0.1', port } }],
    ['listen.host', { listen: { host: '127.0.0.2', port: gateway.port } }],
    ['admin.port', { admin: { port } }],
    ['admin', { admin: false }],
    ['listen.limits.headers', { listen: { host: '127.0.0.1', port: gateway.port, limits: { headers: '32kb' } } }]
  ]
  for (const [key, sections] of changes) {
    const { status, body } = await gateway.reload({ ...good, routes: [route('two', 'a')], ...sections })
    t.equal(status, 422, key)
    t.match(body.faults, [{ path: key, message: /restart/ }], key)
    t.equal((await gateway.ask('/one')).status, 200)
  }
})

t.test('limits of the listener apply to the open server', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const listen = {
    host: '127.0.0.1',
    port: gateway.port,
    timeouts: { keepAlive: '7s', headers: '3s' },
    limits: { connections: 77, perClient: { connections: 1 } }
  }
  t.equal((await gateway.reload({ ...good, listen })).status, 200)
  const { server } = gateway.runtime.listeners[0]!
  t.same([server.maxConnections, server.keepAliveTimeout, server.headersTimeout], [77, 7000, 3000])
  t.equal((await gateway.ask('/one', { agent: false })).status, 200)
  const held = connect(gateway.port, '127.0.0.1')
  t.teardown(() => held.destroy())
  await once(held, 'connect')
  await t.rejects(gateway.ask('/one', { agent: false }), 'a second connection of this client')
})

t.test('a plugin that fails stops only its reload, also if it throws from a timer', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good, {
    'throws.mjs': "export default async () => { throw new Error('no database') }",
    'ready.mjs':
      "export default async (fastify) => { fastify.addHook('onReady', async () => { throw new Error('not ready') }) }",
    'timer.mjs':
      "export default async () => { setTimeout(() => { throw new Error('later') }, 5); await new Promise((done) => setTimeout(done, 200)) }"
  })
  const cases = [
    ['throws', /no database/],
    ['ready', /not ready/],
    ['timer', /later/]
  ] as const
  for (const [name, message] of cases) {
    const { status, body } = await gateway.reload({ ...good, plugins: [{ path: `./${name}.mjs` }] })
    t.equal(status, 422, name)
    t.match(body.faults, [{ message }], name)
    t.equal((await gateway.ask('/one')).status, 200)
  }
  t.equal((await gateway.reload(good)).status, 200)
})

t.test('plugins are started again, with their state in stores, and the former ones are closed', async (t) => {
  const { url } = await service(t)
  const sections = (greeting: string) => ({
    services: { a: { instances: [url] } },
    routes: [route('one', 'a')],
    plugins: [{ path: './greet.mjs', options: { greeting } }]
  })
  const gateway = await running(t, sections('hello'), {
    'greet.mjs': `export default async function greet(fastify, { greeting }) {
      const state = fastify.stores.claim('greet', null, () => ({ count: 0, closed: 0, listened: 0 }))
      fastify.meter.gauge({ name: 'greet_gauge', help: 'x', labelNames: ['greeting'], collect: (set) => set({ greeting }, 1) })
      const { Counter } = await import('prom-client')
      const counter = new Counter({ name: 'greet_total', help: 'x', registers: [fastify.metrics] })
      fastify.addHook('onListen', async () => { state.listened++ })
      fastify.addHook('onClose', async () => { state.closed++ })
      fastify.get('/greet', async () => { counter.inc(); return { greeting, count: ++state.count, closed: state.closed, listened: state.listened } })
    }`
  })
  const greet = async () => JSON.parse((await gateway.ask('/greet')).text) as Record<string, unknown>
  t.same(await greet(), { greeting: 'hello', count: 1, closed: 0, listened: 1 })
  t.equal((await gateway.reload(sections('goodbye'))).status, 200)
  t.match(await greet(), { greeting: 'goodbye', count: 2, listened: 2 })
  let closed = 0
  while (closed !== 1) {
    closed = (await greet()).closed as number
    await sleep(5)
  }
  t.equal(await gateway.metric('greet_gauge{greeting="goodbye"}'), '1')
  t.equal(await gateway.metric('greet_gauge{greeting="hello"}'), undefined)
  t.ok(Number(await gateway.metric('greet_total')) >= 1)
})

t.test('series of removed routes and services are removed', async (t) => {
  const { url } = await service(t)
  const gateway = await running(t, {
    services: { a: { instances: [url] }, b: { instances: [url] } },
    routes: [route('one', 'a'), route('two', 'b')]
  })
  await gateway.ask('/one')
  await gateway.ask('/two')
  t.equal(await gateway.metric('jingwei_edge_requests_total{route="two"'), '1')
  t.equal((await gateway.reload({ services: { a: { instances: [url] } }, routes: [route('one', 'a')] })).status, 200)
  const gone = async (series: string) => {
    while ((await gateway.metric(series)) !== undefined) await sleep(5)
  }
  await gone('jingwei_edge_requests_total{route="two"')
  await gone('jingwei_mesh_attempts_total{service="b"')
  t.equal(await gateway.metric('jingwei_edge_requests_total{route="one"'), '1')
  t.equal(await gateway.metric('jingwei_mesh_attempts_total{service="a",outcome="success"}'), '1')
})

t.test('a new service that cannot be found keeps a ready node ready, and no later reload waits for it', async (t) => {
  const { url } = await service(t)
  const discovery = { consul: { url: `http://127.0.0.1:${await freePort()}` } }
  const good = { discovery, services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const ready = async () => {
    const response = await fetch(`${gateway.admin}/health/ready`)
    return { status: response.status, body: await response.json() }
  }
  t.equal((await ready()).status, 200)
  const services = { ...good.services, lost: {} }
  const { body } = await gateway.reload({ ...good, services })
  t.match(body, { waitingFor: ['lost'] })
  t.match(await ready(), { status: 200, body: { status: 'ready', waitingFor: ['lost'] } })
  t.equal((await gateway.ask('/one')).status, 200)
  const { body: later } = await gateway.reload({ ...good, services, routes: [route('two', 'a')] })
  t.match(later, { waitingFor: [] }, 'the service is no longer new')
})

t.test('the admin port shows the result of the last load', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const lastLoad = async () => ((await (await fetch(`${gateway.admin}/admin`)).json()) as { lastLoad: object }).lastLoad
  t.match(await lastLoad(), { success: true, cause: 'start', faults: [] })
  await gateway.reload({ ...good, nonsense: true })
  t.match(await lastLoad(), { success: false, cause: 'admin request', faults: [{ path: 'nonsense' }] })
  await gateway.reload(good)
  t.match(await lastLoad(), { success: true, cause: 'admin request', faults: [] })
})

t.test('concurrent reloads run in sequence, and waiting ones are merged', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const outcomes = await Promise.all(Array.from({ length: 20 }, () => gateway.runtime.reload('test')))
  t.ok(outcomes.every(({ applied }) => applied))
  t.ok(new Set(outcomes).size <= 2, `${new Set(outcomes).size} reloads`)
})

t.test('with watch: true, a changed file is applied automatically; an invalid one changes nothing', async (t) => {
  const { url } = await service(t)
  const sections = (name: string) => ({
    watch: true,
    services: { a: { instances: [url] } },
    routes: [route(name, 'a')]
  })
  const gateway = await running(t, sections('one'))
  gateway.write(sections('two'))
  while ((await gateway.ask('/two')).status !== 200) await sleep(50)
  gateway.write({ ...sections('three'), nonsense: true })
  while ((await gateway.metric('jingwei_config_last_reload_success')) !== '0') await sleep(50)
  t.equal((await gateway.ask('/two')).status, 200)
  gateway.write(sections('four'))
  while ((await gateway.ask('/four')).status !== 200) await sleep(50)
  unlinkSync(gateway.file)
  while ((await gateway.metric('jingwei_config_last_reload_success')) !== '0') await sleep(50)
  gateway.write(sections('five'))
  while ((await gateway.ask('/five')).status !== 200) await sleep(50)
})

t.test('no state of former configurations stays after 200 reloads', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  const { server } = gateway.runtime.listeners[0]!
  const listeners = () => server.eventNames().map((name) => `${String(name)} ${server.listenerCount(name)}`)
  const counts = () => ({
    listeners: listeners(),
    process: process.eventNames().map((name) => `${String(name)} ${process.listenerCount(name)}`),
    timers: process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length
  })
  await gateway.runtime.reload('test')
  await sleep(200)
  const before = counts()
  for (let i = 0; i < 200; i++) {
    const { applied } = await gateway.runtime.reload('test')
    if (!applied) t.fail(`reload ${i}`)
  }
  await sleep(200)
  const after = counts()
  t.same(after.listeners, before.listeners)
  t.same(after.process, before.process)
  t.ok(after.timers <= before.timers + 5, `${before.timers} → ${after.timers} timers`)
  t.equal((await gateway.ask('/one')).status, 200)
})

t.test('a gateway that shuts down accepts no reload, and ends', async (t) => {
  const { url } = await service(t)
  const good = { services: { a: { instances: [url] } }, routes: [route('one', 'a')] }
  const gateway = await running(t, good)
  t.equal((await gateway.ask('/one')).status, 200)
  const closed = gateway.runtime.close()
  const { applied, faults } = await gateway.runtime.reload('test')
  t.notOk(applied)
  t.match(faults, [{ message: /stopping/ }])
  await closed
  await t.rejects(gateway.ask('/one', { agent: false }))
  t.ok(readFileSync(gateway.file, 'utf8').length > 0)
})
