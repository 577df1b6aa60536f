/** The base path of a service: before the path of every call, and not in the locations of responses. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { request as undiciRequest } from 'undici'
import { relocated } from '../../plugins/base-path.ts'
import { createMesh } from '../../plugins/mesh-api.ts'
import type { Explained } from '../../plugins/operations/explain.ts'
import { explainText } from '../../plugins/operations/explain.ts'
import { authority, folderFor } from '../helpers/certificates.ts'
import { eventually } from '../helpers/eventually.ts'
import { get, startGateway } from '../helpers/gateway.ts'
import { ask2, drain, running, shake } from '../helpers/listeners.ts'

/** A service whose response header has the request target. `?to=` is the location of its response. */
async function service(t: Test) {
  const targets: string[] = []
  const server = http.createServer((request, response) => {
    targets.push(request.url!)
    response.setHeader('x-target', request.url!)
    response.setHeader('content-type', 'application/json')
    const to = /[?&]to=([^&]*)/.exec(request.url!)?.[1]
    if (to !== undefined) response.setHeader('location', decodeURIComponent(to)).writeHead(302)
    else if (/status=503/.test(request.url!)) response.writeHead(503)
    response.end(JSON.stringify({ at: request.url }))
  })
  server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    const fields = ['connection: upgrade', 'upgrade: websocket', `x-target: ${request.url}`]
    socket.end(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, targets }
}

const routes = [
  { name: 'same', match: { path: '/orders' } },
  { name: 'strip', match: { path: '/api' }, path: { strip: true } },
  { name: 'prefix', match: { path: '/old' }, path: { rewrite: { prefix: '/new' } } },
  { name: 'user', match: { path: '/users/:id' }, path: { rewrite: { path: '/v2/user/:id' } } },
  { name: 'host', match: { path: '/own' }, edge: { host: 'upstream' } }
].map((route) => ({ ...route, service: 'any' }))

const targets: readonly [target: string, expected: string][] = [
  ['/orders', '/base/v1/orders'],
  ['/orders/7?a=/b&c', '/base/v1/orders/7?a=/b&c'],
  ['/orders/a%20b//c/', '/base/v1/orders/a%20b//c/'],
  ['/%6frders/%C3%A9', '/base/v1/%6frders/%C3%A9'],
  ['/api', '/base/v1/'],
  ['/api?x', '/base/v1/?x'],
  ['/api/7', '/base/v1/7'],
  ['/old/7?x', '/base/v1/new/7?x'],
  ['/users/7', '/base/v1/v2/user/7'],
  ['/own/7', '/base/v1/own/7']
]

/** Locations of the service, and those that the client of `gate` gets. */
const locations: readonly [path: string, location: string, expected: string][] = [
  ['/orders', '/base/v1/orders/8', '/orders/8'],
  ['/orders', 'http://gate/base/v1/orders/8?a#b', 'http://gate/orders/8?a#b'],
  ['/orders', 'https://other.example/base/v1/orders', 'https://other.example/base/v1/orders'],
  ['/orders', '/base/v10/orders', '/base/v10/orders'],
  ['/orders', '8', '8'],
  ['/api', '/base/v1/8', '/api/8'],
  ['/api', '/base/v1', '/api/'],
  ['/api', 'http://gate/base/v1/8', 'http://gate/api/8'],
  ['/api', 'http://INSTANCE/base/v1/8', '/api/8'],
  ['/old', '/base/v1/new/8', '/old/8'],
  ['/own', 'http://INSTANCE/base/v1/own/8', '/own/8']
]

t.test('over HTTP/1.1, TLS and HTTP/2, for WebSockets, and without the mesh', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' })
  const listen = [
    { name: 'plain', host: '127.0.0.1', port: 0, drain },
    { name: 'secure', host: '127.0.0.1', port: 0, tls: { cert, key }, http2: true }
  ]
  const { url } = await service(t)
  const services = { any: { instances: [`${url}/base/v1`, { url: `${url}/base/v1/` }] } }
  const { portOf, runtime } = await running(t, folder, { listen, services, routes })
  const without = await startGateway({
    services: { any: { basePath: '/base/v1', instances: [url] } },
    routes,
    mesh: false
  })
  t.teardown(without.close)
  for (const [target, expected] of targets) {
    t.equal((await get(portOf('plain'), target)).headers['x-target'], expected, target)
    t.equal((await ask2(portOf('secure'), ours.cert, { ':path': target })).headers['x-target'], expected, 'HTTP/2')
    t.equal((await get(without.port, target)).headers['x-target'], expected, 'without the mesh')
    t.equal((await shake(portOf('plain'), {}, target))['x-target'], expected, 'WebSocket')
    t.equal((await shake(without.port, {}, target))['x-target'], expected, 'WebSocket without the mesh')
  }
  for (const [path, location, expected] of locations) {
    const target = `${path}?to=${encodeURIComponent(location.replace('INSTANCE', new URL(url).host))}`
    for (const port of [portOf('plain'), without.port]) {
      t.equal((await get(port, target, ['Host: gate'])).headers.location, expected, `${location} at ${path}`)
    }
    const { headers } = await ask2(portOf('secure'), ours.cert, { ':path': target, ':authority': 'gate' })
    t.equal(headers.location, expected, `${location} over HTTP/2`)
  }
  const { port } = runtime.admin!.address as AddressInfo
  const explained = await (await fetch(`http://127.0.0.1:${port}/admin/explain?path=/api/7`)).json()
  t.match(explained, { target: '/7', mesh: [{ service: 'any', basePath: '/base/v1' }] })
  t.match(
    explainText(explained as Explained),
    /^ {2}forwards {2}\/7\n.*\n {2}service {3}any\n {4}base path \/base\/v1$/m
  )
})

t.test('each service of a route has its own: split, fallback, mirror, composed calls and http-proxy', async (t) => {
  const [a, b] = [await service(t), await service(t)]
  const { port, close } = await startGateway({
    services: {
      a: { basePath: '/a', instances: [a.url], mesh: { healthCheck: { path: '/up' }, retry: false } },
      b: { instances: [`${b.url}/b`] },
      plain: { instances: [b.url] }
    },
    routes: [
      { name: 'split', match: { path: '/split' }, split: [{ service: 'a', match: { headers: { 'x-v': 'a' } } }, { service: 'b', weight: 1 }] },
      { name: 'fallback', match: { path: '/fall' }, service: 'a', mesh: { fallback: [{ on: ['5xx'], service: 'plain' }] } },
      { name: 'mirror', match: { path: '/mirror' }, service: 'a', mesh: { mirror: { service: 'b' } } },
      { name: 'proxy', match: { path: '/proxy' }, service: 'b', via: 'http-proxy', httpProxy: { rewritePrefix: '/p' } },
      { name: 'compose', match: { path: '/compose', methods: ['GET'] }, compose: { calls: { x: { service: 'a', path: '/x', group: 'x' }, y: { service: 'b', path: '/y', group: 'y' } } } }
    ]
  }) // biome-ignore format: a table
  t.teardown(close)
  const target = async (path: string, headers: string[] = []) => (await get(port, path, headers)).headers['x-target']
  t.equal(await target('/split', ['X-V: a']), '/a/split')
  t.equal(await target('/split'), '/b/split')
  t.equal(await target('/fall?status=503&x'), '/fall?status=503&x', 'the other service has no base path')
  t.ok(a.targets.includes('/a/fall?status=503&x'))
  t.equal(await target('/mirror'), '/a/mirror')
  await eventually(() => b.targets.includes('/b/mirror'), 'the mirrored request')
  t.equal(await target('/proxy/7'), '/b/p/7')
  const to = encodeURIComponent('/b/p/8')
  t.equal((await get(port, `/proxy/7?to=${to}`)).headers.location, '/proxy/8')
  t.same(JSON.parse((await get(port, '/compose')).body), {
    x: { at: '/a/x' },
    y: { at: '/b/y' }
  })
  await eventually(() => a.targets.includes('/up'), 'an active check, whose path is the whole one')
})

t.test('every way to the instances: a sidecar, DNS, without the mesh; hedged calls', async (t) => {
  const [one, two] = [await service(t), await service(t)]
  const { hostname: host, port } = new URL(one.url)
  const instances = [`${one.url}/base`, `${two.url}/base`]
  for (const { a, ...more } of [
    { mesh: { mode: 'sidecar' }, a: { sidecar: one.url, basePath: '/base' } },
    { mesh: false, a: { sidecar: one.url, basePath: '/base' } },
    { mesh: false, forward: { sidecar: one.url }, a: { basePath: '/base' } },
    { a: { dns: { host, port: Number(port) }, basePath: '/base' } },
    { mesh: { hedge: { after: '1ms' }, collapse: true, adaptiveConcurrency: {} }, a: { instances } }
  ]) {
    const routes = [
      { name: 'a', match: { path: '/api' }, service: 'a', path: { strip: true }, edge: { host: 'upstream' } }
    ]
    const gateway = await startGateway({ ...more, services: { a }, routes })
    const { headers } = await get(gateway.port, `/api/7?to=${encodeURIComponent('/base/8')}`)
    t.match(headers, { 'x-target': /^\/base\/7\?to=/, location: '/api/8' }, JSON.stringify({ ...more, a }))
    await gateway.close()
  }
})

t.test('the library: dispatch, fetch that follows a redirect, and an interceptor that signs the path', async (t) => {
  const { url } = await service(t)
  const mesh = createMesh({ services: { orders: { instances: [`${url}/base`] } } })
  t.teardown(() => mesh.close())
  const seen: string[] = []
  const see =
    (kind: string): Parameters<typeof mesh.use>[0] =>
    (dispatch) =>
    (opts, handler) => {
      seen.push(`${kind} ${opts.path}`)
      return dispatch(opts, handler)
    }
  mesh.use(see('request'), { per: 'request' }).use(see('attempt'), { per: 'attempt' })
  await mesh.ready()
  const { headers } = await undiciRequest('http://orders.mesh/7', { dispatcher: mesh })
  t.equal(headers['x-target'], '/base/7')
  t.same(seen, ['request /7', 'attempt /base/7'], 'an attempt has the path that the instance gets')
  const followed = await mesh.fetch(`http://orders.mesh/7?to=${encodeURIComponent('/base/8')}`)
  t.equal(followed.headers.get('x-target'), '/base/8')
  const query = await mesh.request({ origin: 'http://orders.mesh', path: '/q', method: 'GET', query: { a: 1 } })
  t.equal(query.headers['x-target'], '/base/q?a=1')
})

t.test('a location never becomes one of another host', (t) => {
  const hosts = () => ['gate:80', '127.0.0.1:9']
  const at = (location: string) => relocated({ location }, null, '/base', hosts).location
  for (const [location, expected] of [
    ['/base//evil.example', '/.//evil.example'],
    ['/base/\\evil.example', '/./\\evil.example'],
    ['/base/\t/evil.example', '/./\t/evil.example'],
    ['http://gate/base//x', 'http://gate//x'],
    ['HTTP://GATE:80/base/x', 'HTTP://GATE:80/x'],
    ['https://gate/base/x', 'https://gate/base/x'],
    ['//gate/base', '//gate/base'],
    ['//gate:80/base', '//gate:80/'],
    ['//127.0.0.1:9/base?x', '//127.0.0.1:9/?x'],
    ['http://gate@evil/base/x', 'http://gate@evil/base/x'],
    ['mailto:/base/x', 'mailto:/base/x'],
    ['/BASE/x', '/BASE/x'],
    ['', '']
  ] as const) {
    t.equal(at(location), expected, location)
  }
  const raw = [Buffer.from('Location'), Buffer.from('/base/x'), 'X-A', '/base/x']
  const headers = { location: '/base/x', 'x-a': '/base/x' }
  t.same(relocated(headers, raw, '/base', hosts), { location: '/x', 'x-a': '/base/x' })
  t.same(raw.map(String), ['Location', '/x', 'X-A', '/base/x'])
  t.end()
})
