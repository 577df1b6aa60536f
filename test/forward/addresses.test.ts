// slow: takes about 15 s
/** Services without the mesh: several addresses, sidecars, TLS, the admin port, and reloads from and to the mesh. */
import { readFileSync, writeFileSync } from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { CLOCK, systemClock } from '../../plugins/clock.ts'
import { eventually } from '../helpers/eventually.ts'
import type { GatewayOptions } from '../helpers/gateway.ts'
import { ask, get, startEcho, startGateway, startService } from '../helpers/gateway.ts'
import { runToEnd, start } from '../helpers/processes.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const routeTo = (...names: string[]) => names.map((name) => ({ name, match: { path: `/${name}` }, service: name }))

async function named(t: Test, name: string) {
  const service = await startService((_request, response) => response.end(name))
  t.teardown(service.close)
  return service
}

async function gatewayWith(t: Test, config: object, options: GatewayOptions = {}) {
  const gateway = await startGateway({ mesh: false, admin: { port: 0 }, ...config }, { log: true, ...options })
  t.teardown(gateway.close)
  const admin = async (path: string) => (await gateway.server.admin!.inject(path)).json() as unknown
  return { ...gateway, admin }
}

t.test('requests go to all addresses in turn', async (t) => {
  const instances = [(await named(t, 'a')).url, (await named(t, 'b')).url, (await named(t, 'c')).url]
  const { port } = await gatewayWith(t, { services: { one: { instances } }, routes: routeTo('one') })
  const bodies: string[] = []
  for (let i = 0; i < 6; i++) bodies.push((await get(port, '/one')).body)
  t.equal(bodies.join(''), 'abcabc')
})

t.test('an address to which no connection can be made rests, while there is another', async (t) => {
  const down = 'http://127.0.0.1:1'
  let nowMs = 0
  const before = (server: FastifyInstance) => void server.decorate(CLOCK, { ...systemClock, now: () => nowMs })
  const instances = [down, (await named(t, 'up')).url]
  const { port, admin } = await gatewayWith(t, { services: { one: { instances } }, routes: routeTo('one') }, { before })
  t.equal((await get(port, '/one')).status, 502, 'a request is not repeated')
  const status = async () => ((await admin('/admin/services')) as { instances: object[] }[])[0]!.instances
  t.match(await status(), [
    { origin: down, available: false, obstacles: { connect: 'no connection (ECONNREFUSED)' } },
    { available: true, obstacles: {} }
  ])
  for (let i = 0; i < 4; i++) t.equal((await get(port, '/one')).body, 'up')
  nowMs += 1001
  t.match(await status(), [{ available: true }, { available: true }])
  const statuses = [(await get(port, '/one')).status, (await get(port, '/one')).status]
  t.strictSame(statuses.sort(), [200, 502], 'after its rest it is tried again')
})

t.test('one sidecar for all services, which selects by Host', async (t) => {
  const sidecar = await startEcho()
  t.teardown(sidecar.close)
  const own = await startEcho()
  t.teardown(own.close)
  const { port, log } = await gatewayWith(t, {
    forward: { sidecar: sidecar.url },
    services: { orders: {}, users: { forward: { host: '{service}.virtual.consul' } }, own: { sidecar: own.url } },
    routes: routeTo('orders', 'users', 'own')
  })
  const orders = await ask(port, '/orders', ['Host: api.example.com'])
  t.match(orders.headers, { host: 'orders', 'x-forwarded-host': 'api.example.com' })
  t.equal(orders.rawHeaders.filter((text) => text.toLowerCase() === 'host').length, 1)
  t.equal((await ask(port, '/users')).headers.host, 'users.virtual.consul')
  t.equal((await ask(port, '/own')).headers.host, 'h', 'a listener for one service needs no Host')
  await eventually(() => log.filter(({ msg }) => msg === 'request').length === 3)
  t.match(
    log.filter(({ msg }) => msg === 'request'),
    [
      { service: 'orders', instance: sidecar.url },
      { service: 'users', instance: sidecar.url },
      { service: 'own', instance: own.url }
    ]
  )
})

t.test('https, with authorities, a name and a client certificate of its own', async (t) => {
  const { cert, key } = selfSigned(t)
  const pem = { cert: readFileSync(cert), key: readFileSync(key) }
  const server = https.createServer({ ...pem, ca: pem.cert, requestCert: true }, (request, response) => {
    const socket = request.socket as TLSSocket
    response.end(JSON.stringify([socket.authorized, socket.servername, socket.alpnProtocol]))
  })
  let connections = 0
  server.on('secureConnection', () => connections++)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close().closeAllConnections())
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`
  const of = (tls?: object) =>
    gatewayWith(t, {
      ...(tls && { forward: { tls } }),
      services: { one: { instances: [url] } },
      routes: routeTo('one')
    })
  const trusted = await of({ ca: cert, cert, key, serverName: 'localhost' })
  for (const host of ['a', 'b']) {
    const { body } = await get(trusted.port, '/one', [`Host: ${host}`])
    t.strictSame(JSON.parse(body), [true, 'localhost', 'http/1.1'], 'not the Host of the client')
  }
  t.equal(connections, 1, 'nor does another Host need another connection')
  const untrusted = await of()
  t.match(await get(untrusted.port, '/one'), {
    status: 502,
    headers: { 'proxy-status': 'jingwei; error=tls_certificate_error' }
  })
})

t.test('the admin port, health, `routes` and `explain`', async (t) => {
  const service = await named(t, 'one')
  const config = {
    mesh: false,
    listen: { port: 0 },
    admin: { port: 0 },
    services: { one: { instances: [service.url] }, two: { sidecar: service.url } },
    routes: routeTo('one', 'two')
  }
  const { admin } = await gatewayWith(t, config)
  t.match(await admin('/health/ready'), {
    status: 'ready',
    services: { one: { source: 'instances', instances: 1 }, two: { source: 'sidecar', instances: 1 } }
  })
  t.match(await admin('/admin/services/one'), {
    name: 'one',
    active: 0,
    instances: [{ origin: service.url, weight: 1 }]
  })
  t.match(await admin('/admin/routes'), [
    { name: 'one', via: 'http-proxy', mesh: ['agent'], responsePath: 'reply' },
    {}
  ])
  t.match(await admin('/admin/explain?path=/two/7'), { route: 'two', target: '/two/7', mesh: [{ chain: ['agent'] }] })
  const file = join(t.testdir({ 'gateway.yaml': JSON.stringify(config) }), 'gateway.yaml')
  const run = async (...args: string[]) =>
    (await runToEnd('node', [join(import.meta.dirname, '../../app.ts'), ...args])).stdout
  t.match(await run('check', file), /: ok, 2 routes, 2 services\n$/)
  t.match(await run('routes', file), /one +any \/one .* one via http-proxy +agent +reply/)
  t.match(await run('explain', file, 'GET', '/one'), /mesh {6}agent\n {4}instances 1 from instances\n/)
})

t.test('calls of plugins: request.mesh works, and interceptors of the mesh are refused by name', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const folder = t.testdir({
    'calls.ts': `export default async (fastify) => {
      fastify.get('/own', async (request) => (await request.mesh.json('one', '/from-plugin')).url)
    }`,
    'uses.ts': `export default async (fastify) => {
      fastify.mesh.use((dispatch) => dispatch, { per: 'request' })
    }`
  })
  const config = (plugin: string) => ({
    mesh: false,
    services: { one: { instances: [service.url] } },
    routes: routeTo('one'),
    plugins: [{ path: join(folder, plugin) }]
  })
  const { port } = await gatewayWith(t, config('calls.ts'))
  t.equal((await get(port, '/own')).body, '/from-plugin')
  await t.rejects(startGateway(config('uses.ts')), {
    message: /plugins\[0\]: .*fastify\.mesh\.use\(\) needs the mesh, but the configuration has "mesh: false"/
  })
})

t.test('a reload from the mesh to `mesh: false` and back, under load', async (t) => {
  const service = await named(t, 'ok')
  const config = (more: object) =>
    JSON.stringify({
      listen: { host: '127.0.0.1', port: 0, drain: { delay: '0s' } },
      admin: { port: 0 },
      services: { one: { instances: [service.url] } },
      routes: routeTo('one'),
      ...more
    })
  const file = join(t.testdir({ 'gateway.yaml': config({}) }), 'gateway.yaml')
  const app = join(import.meta.dirname, '../../app.ts')
  const gateway = await start({ command: 'node', args: [app, '-c', file], ready: /jingwei is up/ })
  t.teardown(() => gateway.stop())
  const [, edge, admin] = /^ {2}edge {5}(\S+)\n {2}metrics {2}(\S+)\/metrics$/m.exec(gateway.output()) ?? []
  const statuses = new Map<number, number>()
  let isOver = false
  const load = async () => {
    while (!isOver) {
      const response = await fetch(`${edge}/one`)
      await response.text()
      statuses.set(response.status, (statuses.get(response.status) ?? 0) + 1)
    }
  }
  const loads = [load(), load(), load()]
  const chains = async () => ((await (await fetch(`${admin}/admin/routes`)).json()) as { mesh: string[] }[])[0]!.mesh
  for (const [more, isForwarded] of [
    [{ mesh: false }, true],
    [{}, false],
    [{ mesh: false }, true],
    [{}, false]
  ] as const) {
    const before = statuses.get(200) ?? 0
    writeFileSync(file, config(more))
    const response = await fetch(`${admin}/admin/reload`, { method: 'POST' })
    t.equal(response.status, 200, await response.text())
    t.equal((await chains()).join() === 'agent', isForwarded)
    await eventually(() => (statuses.get(200) ?? 0) > before + 20)
  }
  isOver = true
  await Promise.all(loads)
  t.strictSame([...statuses.keys()], [200], `${statuses.get(200)} requests`)
})
