/** Replacement of the whole path: by parameters of the match, or by groups of an expression. */
import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { authority, folderFor } from '../helpers/certificates.ts'
import { get, startGateway } from '../helpers/gateway.ts'
import { ask2, drain, running, shake } from '../helpers/listeners.ts'

/** A service whose response header has the request target, also in the response to a handshake. */
async function service(t: Test): Promise<{ instances: string[] }> {
  const server = http.createServer((request, response) => response.setHeader('x-target', request.url!).end())
  server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    const fields = ['connection: upgrade', 'upgrade: websocket', `x-target: ${request.url}`]
    socket.end(`HTTP/1.1 101 Switching Protocols\r\n${fields.join('\r\n')}\r\n\r\n`)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { instances: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`] }
}

const routes = [
  { name: 'user', match: { path: '/users/:id' }, path: { rewrite: { path: '/v2/user/:id' } } },
  { name: 'two', match: { path: '/a/:x/b/:y' }, path: { rewrite: { path: '/:y::/:x.json' } } },
  { name: 'several', match: { path: ['/o/:id', '/o/:id/x'] }, path: { rewrite: { path: '/p/:id' } } },
  { name: 'file', match: { path: '/f/:name.:ext' }, path: { rewrite: { path: '/:ext/:name' } } },
  { name: 'below', match: { path: '/t/:tenant/*' }, path: { rewrite: { path: '/tenants/:tenant/x/*' } } },
  { name: 'prefix', match: { path: '/pre' }, path: { rewrite: { path: '/q/*' } } },
  { name: 'begin', match: { path: '/api/v*' }, path: { rewrite: { path: '/version/*' } } },
  { name: 'dot', match: { path: '/dot*' }, path: { rewrite: { path: '/x/.*' } } },
  { name: 'fixed', match: { path: '/all' }, path: { rewrite: { path: '/one/caf\u00e9' } } },
  { name: 'slash', match: { path: '/s/:id' }, path: { rewrite: { path: '/r/:id' }, encodedSlash: 'pass', parameters: 'pass' } },
  { name: 'regex', match: { path: '/r' }, path: { rewrite: { regex: '^/r/(\\d+)(?:/(.*))?$', to: '/n/$1/$$/$2' } } },
  { name: 'join', match: { path: '/j' }, path: { rewrite: { regex: '^/j/(.)x(.*)$', to: '/$1$2' } } }
] // biome-ignore format: a table

const targets: readonly [target: string, expected: string | number][] = [
  ['/users/7', '/v2/user/7'],
  ['/users/7?a=/b&c', '/v2/user/7?a=/b&c'],
  ['/%75sers//a%20b', '/v2/user/a%20b'],
  ['/users/%41', '/v2/user/%41'],
  ['/users/%3Fx%23', '/v2/user/%3Fx%23'],
  ['/users/%2525', '/v2/user/%2525'],
  ['/users/..', 400],
  ['/users/a%2Fb', 400],
  ['/users/7/8', 404],
  ['/a/1/b/2', '/2:/1.json'],
  ['/o/1', '/p/1'],
  ['/o/1/x', '/p/1'],
  ['/f/a.b', '/b/a'],
  ['/f/a%2eb', '/b/a'],
  ['/f/caf%C3%A9%3F.b', '/b/caf%C3%A9%3F'],
  ['/t/one/2/3/', '/tenants/one/x/2/3/'],
  ['/t//one///2', '/tenants/one/x/2'],
  ['/pre', '/q/'],
  ['/pre/1/2?x', '/q/1/2?x'],
  ['/api/v1/x', '/version/1/x'],
  ['/api/v/1', '/version/1'],
  ['/api/%76%31', '/version/%31'],
  ['/dot./secret', 400],
  ['/dotx/y', '/x/.x/y'],
  ['/all/x?y', '/one/caf%C3%A9?y'],
  ['/s/a%2Fb;v=1', '/r/a%2Fb;v=1'],
  ['/s/a%2F..', 400],
  ['/r/12', '/n/12/$/'],
  ['/r/12/a/b', '/n/12/$/a/b'],
  ['//r/%312/%c3%a9/%7e', '/n/12/$/%C3%A9/~'],
  ['/r/x', '/r/x'],
  ['/j/ax/b', '/a/b'],
  ['/j/.x./secret', 400],
  ['/j//xhost', '/j//xhost']
] // biome-ignore format: a table

t.test('spellings that the listener ignores are rewritten, too', async (t) => {
  const services = { any: await service(t) }
  const rewrite = { regex: '^/rx/(.*)$', to: '/pub/$1' }
  const exact = { regex: '^/only/this$', to: '/that' }
  const to = [
    { name: 'all', match: { path: '/rx' }, path: { rewrite }, service: 'any' },
    { name: 'one', match: { path: '/only/this' }, path: { rewrite: exact }, service: 'any' }
  ]
  const targetsOf = async (paths: object) => {
    const { port, close } = await startGateway({ listen: { paths }, services, routes: to })
    t.teardown(close)
    return async (target: string) => {
      const { status, headers } = await get(port, target)
      return status === 200 ? headers['x-target'] : status
    }
  }
  const alike = await targetsOf({ case: 'ignore', trailingSlash: 'ignore', trailingDot: 'ignore' })
  t.equal(await alike('/RX/Secret'), '/pub/Secret', 'groups keep their case')
  t.equal(await alike('/%52x/a'), '/pub/a')
  for (const target of ['/ONLY/this', '/only/this/', '/only/this.', '/Only./THIS%20', '/only/this./'])
    t.equal(await alike(target), '/that', target)
  const distinct = await targetsOf({ case: 'distinct', trailingSlash: 'distinct', trailingDot: 'distinct' })
  t.equal(await distinct('/RX/Secret'), 404)
  t.equal(await distinct('/only/this/'), '/only/this/', 'an expression that does not match leaves the path as it is')
})

t.test('paths are rewritten over HTTP/1.1, TLS and HTTP/2, for WebSockets, and without the mesh', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' })
  const listen = [
    { name: 'plain', host: '127.0.0.1', port: 0, drain },
    { name: 'secure', host: '127.0.0.1', port: 0, tls: { cert, key }, http2: true }
  ]
  const services = { any: await service(t) }
  const to = routes.map((route) => ({ ...route, service: 'any' }))
  const { portOf, runtime } = await running(t, folder, { listen, services, routes: to })
  const without = await startGateway({ services, routes: to, mesh: false })
  t.teardown(without.close)
  for (const [target, expected] of targets) {
    const found = ({ status, headers }: { status: number; headers: { [name: string]: unknown } }) =>
      status === 200 ? headers['x-target'] : status
    t.equal(found(await get(portOf('plain'), target)), expected, target)
    t.equal(found(await ask2(portOf('secure'), ours.cert, { ':path': target })), expected, `${target} over HTTP/2`)
    // http-proxy refuses some targets itself.
    if (!/^\/\/|\.\./.test(target))
      t.equal(found(await get(without.port, target)), expected, `${target} without the mesh`)
    if (typeof expected === 'string')
      t.equal((await shake(portOf('plain'), {}, target))['x-target'], expected, `${target} of a WebSocket`)
  }
  const { port } = runtime.admin!.address as AddressInfo
  const explained = async (path: string) =>
    (await fetch(`http://127.0.0.1:${port}/admin/explain?path=${encodeURIComponent(path)}`)).json() as Promise<{
      target?: string
      refused: { status: number; code: string } | null
    }>
  t.equal((await explained('/users/7?x')).target, '/v2/user/7?x')
  t.match((await explained('/j/.x./secret')).refused, { status: 400, code: 'JW_AMBIGUOUS_PATH' })
})
