// slow: takes about 3 s
/** Conditions of routes, several paths and priorities, over HTTP/1.1, HTTP/2, TLS and WebSocket. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'
import t from 'tap'
import { authority, folderFor } from '../helpers/certificates.ts'
import { get, startGateway } from '../helpers/gateway.ts'
import { ask, ask2, clientView, drain, running, shake } from '../helpers/listeners.ts'

t.setTimeout(60_000)

/** Conditions, and requests of the form `query|headers` that meet them or not. */
const conditions: readonly [name: string, match: object, meets: readonly string[], fails: readonly string[]][] = [
  ['exact-header', { headers: { 'X-Beta': 'on' } }, ['|x-beta: on', '|x_beta: on', '|x_beta: on\nx-beta: on'], ['|', '|x-beta: On', '|x-beta: on, on', '|x-beta: ', '|x-beta: on\nX_Beta: off']],
  ['empty-header', { headers: { 'x-beta': '' } }, ['|x-beta: '], ['|', '|x-beta: 1']],
  ['header', { headers: { 'x-beta': { present: true } } }, ['|x-beta: 1', '|x-beta: ', '|x_beta: 1'], ['|', '|x-alpha: 1', '|x_bet: 1']],
  ['odd-header', { headers: { x_beta: '1' } }, ['|x_beta: 1', '|x-beta: 1'], ['|', '|x_beta: 1\nx-beta: 2']],
  ['no-header', { headers: { 'x-beta': { present: false } } }, ['|', '|x-alpha: 1', '|x_alpha: 1'], ['|x-beta: ', '|X-Beta: 1', '|x_beta: 1', '|X_BETA: ', '|x.beta: 1']],
  ['inherited-header', { headers: { constructor: { present: true } } }, ['|constructor: 1'], ['|']],
  [
    'regex-header',
    { headers: { 'x-v': { regex: '^v[12](\\.\\d+)?$' } } },
    ['|x-v: v1', '|x-v: v2.10'],
    ['|', '|x-v: v3', '|x-v: v1x', '|x-v: v1, v2', '|x-v: ', '|x-v: v1\nx_v: v3']
  ],
  [
    'query',
    { query: { v: '2' } },
    ['?v=2|', '?a=1&v=2|', '?%76=%32|', '?v=2&v=2|'],
    ['|', '?v|', '?v=3|', '?V=2|', '?v=2&v=1|', '?v=1&v=2|', '?v=2;a|', '?xv=2|']
  ],
  ['query-blank', { query: { q: 'a b' } }, ['?q=a+b|', '?q=a%20b|'], ['?q=a%2Bb|', '?q=a|']],
  ['query-empty', { query: { v: '' } }, ['?v|', '?v=|', '?&v&|'], ['|', '?v=1|', '?v=%20|']],
  ['query-present', { query: { v: { present: true } } }, ['?v|', '?v=1|', '?v=1&v=2|'], ['|', '?w|']],
  ['query-absent', { query: { v: { present: false } } }, ['|', '?w|', '?V=1|'], ['?v|', '?v=1|', '?%76|']],
  ['query-regex', { query: { v: { regex: '^\\d{1,3}$' } } }, ['?v=123|'], ['?v=1234|', '?v=|', '?v=1&v=x|', '?v=1%0A|']],
  [
    'cookie',
    { cookies: { ring: 'canary' } },
    ['|cookie: ring=canary', '|cookie: a=b; ring="canary"; c', '|cookie: ring=canary; ring=canary'],
    ['|', '|cookie: ring=', '|cookie: Ring=canary', '|cookie: ring=canary; ring=no', '|cookie: xring=canary']
  ],
  ['cookie-present', { cookies: { s: { present: true } } }, ['|cookie: s=', '|cookie: a; s=1'], ['|', '|cookie: s', '|cookie: t=s=1']],
  ['cookie-absent', { cookies: { s: { present: false } } }, ['|', '|cookie: t=1'], ['|cookie: s=1']],
  [
    'all',
    { headers: { a: '1' }, query: { b: '2' }, cookies: { c: { regex: '^3$' } } },
    ['?b=2|a: 1\ncookie: c=3'],
    ['?b=2|a: 1', '?b=2|cookie: c=3', '|a: 1\ncookie: c=3']
  ]
] // biome-ignore format: a table

/** A service that names itself in a response header, also to handshakes of WebSockets; its body is the request target. */
async function named(t: Test, name: string): Promise<{ instances: string[] }> {
  const server = http.createServer((request, response) => response.setHeader('x-service', name).end(request.url))
  server.on('upgrade', (_, socket) => {
    socket.on('error', () => {})
    socket.end(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-service: ${name}\r\n\r\n`
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return { instances: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`] }
}

const headersOf = (lines: string) =>
  Object.fromEntries(
    lines.split('\n').flatMap((line) => {
      const colon = line.indexOf(':')
      return colon === -1 ? [] : [[line.slice(0, colon), line.slice(colon + 1).trim()]]
    })
  )

t.test('conditions select a route over HTTP/1.1, TLS, HTTP/2 and for WebSocket handshakes', async (t) => {
  const folder = folderFor(t)
  const ours = authority(folder, 'ours')
  const { certFile: cert, keyFile: key } = ours.issue('localhost', { san: 'DNS:localhost,IP:127.0.0.1' })
  const listen = [
    { name: 'plain', host: '127.0.0.1', port: 0, drain },
    { name: 'secure', host: '127.0.0.1', port: 0, tls: { cert, key }, http2: true }
  ]
  const services = { met: await named(t, 'met'), unmet: await named(t, 'unmet') }
  const routes = conditions.flatMap(([name, match]) => [
    { name, match: { path: `/${name}`, ...match }, service: 'met' },
    { name: `${name}-else`, match: { path: `/${name}` }, service: 'unmet' }
  ])
  const { portOf } = await running(t, folder, { listen, services, routes })
  const port = portOf('plain')
  const secure = portOf('secure')
  const ca = ours.cert
  const serviceOf = ({ headers }: { headers: IncomingHttpHeaders }) => headers['x-service']
  for (const [name, , meets, fails] of conditions) {
    for (const request of [...meets, ...fails]) {
      const [query = '', lines = ''] = request.split('|')
      const path = `/${name}${query}`
      const headers = headersOf(lines)
      const wanted = meets.includes(request) ? 'met' : 'unmet'
      const about = `${path} ${lines}`
      t.equal(serviceOf(await ask({ port, path, headers })), wanted, `${about} over HTTP/1.1`)
      t.equal(serviceOf(await ask({ port: secure, path, headers, ca }, https)), wanted, `${about} over TLS`)
      t.equal(serviceOf(await ask2(secure, ca, { ':path': path, ...headers })), wanted, `${about} over HTTP/2`)
      t.equal((await shake(port, headers, path))['x-service'], wanted, `${about} of a WebSocket`)
    }
  }
})

t.test('repeated headers and cookie fields are read as one, over both versions', async (t) => {
  const services = { met: await named(t, 'met'), unmet: await named(t, 'unmet') }
  const routes = [
    { name: 'header', match: { path: '/h', headers: { 'x-a': '1, 2' } }, service: 'met' },
    { name: 'regex', match: { path: '/r', headers: { 'x-a': { regex: '^1(, 1)*$' } } }, service: 'met' },
    { name: 'cookie', match: { path: '/c', cookies: { b: '2' } }, service: 'met' },
    { name: 'else', match: { path: '/' }, service: 'unmet' }
  ]
  const { port, close } = await startGateway({ services, routes })
  t.teardown(close)
  const found = async (target: string, headers: string[]) => (await get(port, target, headers)).headers['x-service']
  t.equal(await found('/h', ['x-a: 1', 'X-A: 2']), 'met')
  t.equal(await found('/h', ['x-a: 2', 'x-a: 1']), 'unmet')
  t.equal(await found('/r', ['x-a: 1', 'x-a: 1']), 'met')
  t.equal(await found('/r', ['x-a: 1', 'x-a: 2']), 'unmet', 'every value must meet the condition')
  t.equal(await found('/c', ['cookie: a=1', 'cookie: b=2']), 'met')
  t.equal(await found('/c', ['cookie: b=2', 'cookie: b=1']), 'unmet')
})

t.test('client addresses: of the peer, or what a trusted proxy forwards', async (t) => {
  const folder = folderFor(t)
  const services = { met: await named(t, 'met'), unmet: await named(t, 'unmet') }
  const match = { path: '/', addresses: ['10.0.0.0/8', '2001:db8::/32'] }
  const routes = [
    { name: 'inner', match, service: 'met' },
    { name: 'local', match: { path: '/local', addresses: ['127.0.0.1'] }, service: 'met' },
    { name: 'else', match: { path: '/' }, service: 'unmet' }
  ]
  const listen = [
    { name: 'direct', host: '127.0.0.1', port: 0, drain },
    { name: 'behind', host: '127.0.0.1', port: 0, trustProxy: ['127.0.0.1', '192.0.2.1'] }
  ]
  const { portOf } = await running(t, folder, { listen, services, routes, plugins: [{ path: './client-view.mjs' }] })
  const from = async (listener: string, forwarded: string | null, path = '/') => {
    const headers = { ...(forwarded !== null && { 'x-forwarded-for': forwarded }) }
    const answer = await ask({ port: portOf(listener), path, headers })
    return [answer.headers['x-service'], clientView(answer).ip]
  }
  t.same(await from('direct', null, '/local'), ['met', '127.0.0.1'])
  t.same(await from('direct', '10.0.0.1'), ['unmet', '127.0.0.1'], 'a client cannot forge its address')
  t.same(await from('direct', '10.0.0.1', '/local'), ['met', '127.0.0.1'])
  for (const [forwarded, wanted] of [
    ['10.1.2.3', 'met'],
    ['11.1.2.3', 'unmet'],
    ['::ffff:10.1.2.3', 'met'],
    ['10.1.2.3:4711', 'met'],
    ['[2001:DB8::1]:80', 'met'],
    ['2001:db9::1', 'unmet'],
    ['10.1.2.3, 192.0.2.1', 'met'],
    ['10.1.2.3, 203.0.113.9', 'unmet'],
    ['10.1.2.3, 203.0.113.9, 192.0.2.1', 'unmet'],
    ['203.0.113.9, 10.1.2.3', 'met'],
    ['nonsense', 'unmet'],
    [`${'10.1.2.3, '.repeat(60)}192.0.2.1`, 'met']
  ] as const) {
    const [found, ip] = await from('behind', forwarded)
    t.equal(found, wanted, forwarded)
    const inRange = /^10\.|^2001:db8:/.test(String(ip)) ? 'met' : 'unmet'
    t.equal(found, inRange, `request.ip ${ip} is the address that was matched`)
  }
})

t.test('a preflight is matched by address and query, not by the headers and cookies that it lacks', async (t) => {
  const services = { any: await named(t, 'any') }
  const cors = (name: string) => ({ cors: { origin: [`https://${name}.example`] } })
  const routes = [
    { name: 'two', match: { path: '/x', query: { v: '2' }, cookies: { s: '1' } }, service: 'any', edge: cors('two') },
    { name: 'one', match: { path: '/x', query: { v: '1' } }, service: 'any', edge: cors('one') }
  ]
  const { port, close } = await startGateway({ services, routes })
  t.teardown(close)
  for (const name of ['one', 'two']) {
    const asks = [`origin: https://${name}.example`, 'access-control-request-method: PUT']
    const answer = await get(port, `/x?v=${name === 'one' ? 1 : 2}`, asks, 'OPTIONS')
    t.equal(answer.headers['access-control-allow-origin'], `https://${name}.example`)
  }
  t.equal(
    (await get(port, '/x?v=3', ['origin: https://one.example', 'access-control-request-method: PUT'], 'OPTIONS'))
      .status,
    404
  )
})

t.test('several paths lead to one route, each with its own parameters and prefix', async (t) => {
  const services = { any: await named(t, 'any') }
  const routes = [
    {
      name: 'all',
      match: { path: ['/a', '/b/c', { exact: '/d' }, '/api/v*', '/t/:tenant/*'] },
      service: 'any',
      path: { strip: true }
    },
    { name: 'new', match: { path: ['/e', '/f/g'] }, service: 'any', path: { rewrite: { prefix: '/new' } } },
    { name: 'begin', match: { path: ['/x/v*', '/x/w*'] }, service: 'any', path: { rewrite: { prefix: '/y-' } } },
    {
      name: 'tenant',
      match: { path: ['/q/:tenant/r', '/q/:tenant/s/:id'] },
      service: 'any',
      path: { strip: '/q/:tenant' }
    }
  ]
  const mesh = await startGateway({ services, routes })
  const without = await startGateway({ services, routes, mesh: false })
  t.teardown(mesh.close)
  t.teardown(without.close)
  const sent = async (port: number, target: string) => {
    const { status, body } = await get(port, target)
    return status === 200 ? body : status
  }
  for (const [target, expected] of [
    ['/a/1?x=1', '/1?x=1'],
    ['/a', '/'],
    ['/b/c/1', '/1'],
    ['/b', 404],
    ['/d', '/'],
    ['/d/1', 404],
    ['/api/v1/users', '/1/users'],
    ['/api/%76%31/users', '/%31/users'],
    ['/api//v1', '/1'],
    ['/api/v?x', '/?x'],
    ['/api/w', 404],
    ['/t/one/2/3', '/2/3'],
    ['/t/%6fne//2', '/2'],
    ['/e/1', '/new/1'],
    ['/f/g/1/', '/new/1/'],
    ['/f/g?x', '/new?x'],
    ['/x/v1/2', '/y-1/2'],
    ['/x/w?a', '/y-?a'],
    ['/api/v//1', '/1'],
    ['/api/v../secret', 400],
    ['/api/v%2e%2e/secret', 400],
    ['/api/v./secret', 400],
    ['/api/v..', 400],
    ['/api/v...', '/...'],
    ['/q/one/r', '/r'],
    ['/q/one/r/2', 404],
    ['/q/one/s/7', '/s/7']
  ] as const)
    for (const { port } of [mesh, without]) t.equal(await sent(port, target), expected, target)
})

t.test('a higher priority wins over host, path and conditions; within one, the order is the usual one', async (t) => {
  const names = ['maintenance', 'beta', 'host', 'long', 'usual', 'last']
  const services = Object.fromEntries(await Promise.all(names.map(async (name) => [name, await named(t, name)])))
  const routes = [
    { name: 'last', match: { path: '/' }, priority: -1 },
    { name: 'usual', match: { path: '/api' } },
    { name: 'long', match: { path: '/api/long' } },
    { name: 'host', match: { path: '/api/long', hosts: ['h.example'] } },
    { name: 'beta', match: { path: '/api', headers: { 'x-beta': '1' } }, priority: 5 },
    { name: 'maintenance', match: { path: ['/api/down', '/api/long'], cookies: { down: '1' } }, priority: 10 }
  ]
  const { port, close } = await startGateway({
    services,
    routes: routes.map((route) => ({ ...route, service: route.name }))
  })
  t.teardown(close)
  const found = async (target: string, ...headers: string[]) => (await get(port, target, headers)).headers['x-service']
  t.equal(await found('/api/long/1'), 'long')
  t.equal(await found('/api/long/1', 'host: h.example'), 'host')
  t.equal(await found('/api/long/1', 'host: h.example', 'x-beta: 1'), 'beta')
  t.equal(await found('/api/long/1', 'host: h.example', 'x-beta: 1', 'cookie: down=1'), 'maintenance')
  t.equal(await found('/api/down', 'cookie: down=1'), 'maintenance')
  t.equal(await found('/api/down'), 'usual')
  t.equal(await found('/else', 'x-beta: 1', 'cookie: down=1'), 'last')
  t.equal((await get(port, '/api', [], 'PROPFIND')).status, 405)
})

t.test('explain, the admin port and the table of routes know conditions, and mask their values', async (t) => {
  const folder = folderFor(t)
  const services = { any: await named(t, 'any') }
  const match = { path: ['/a', { exact: '/b' }], query: { q: 'hunter2' }, cookies: { c: { regex: '^hunter2$' } } }
  const routes = [
    { name: 'cond', match: { ...match, headers: { h: { present: false } }, addresses: ['10.0.0.0/8'] }, priority: 3 },
    { name: 'else', match: { path: '/' } }
  ].map((route) => ({ ...route, service: 'any' }))
  const listen = [{ name: 'one', host: '127.0.0.1', port: 0, drain }]
  const { runtime } = await running(t, folder, { listen, services, routes })
  const { port } = runtime.admin!.address as AddressInfo
  const admin = async (path: string) => JSON.parse((await ask({ port, path })).text)
  const explained = async (more: string) => (await admin(`/admin/explain?${more}`)).route
  const met = `path=${encodeURIComponent('/a/1?q=hunter2')}&header=cookie:c%3Dhunter2`
  t.equal(await explained(`${met}&ip=10.1.1.1`), 'cond')
  t.equal(await explained(`${met}&ip=11.1.1.1`), 'else')
  t.equal(await explained(`${met}&ip=10.1.1.1&header=h:1`), 'else')
  const [shown] = await admin('/admin/routes')
  t.strictSame(shown.match, {
    path: ['/a', { exact: '/b' }],
    headers: { h: { present: false } },
    query: { q: '***' },
    cookies: { c: '***' },
    addresses: ['10.0.0.0/8']
  })
  t.equal(shown.priority, 3)
  const { stdout } = await promisify(execFile)(process.execPath, ['app.ts', 'routes', join(folder, 'gateway.yaml')])
  t.match(stdout, /any \/a,=\/b no h \?q:\*\*\* cookie c:\*\*\* from 10\.0\.0\.0\/8 priority 3/)
  t.notMatch(stdout, /hunter2/)
})

t.test('routes of a group are served with its match, its path and its concerns', async (t) => {
  const services = { met: await named(t, 'met'), unmet: await named(t, 'unmet') }
  const groups = {
    shop: {
      match: { headers: { 'x-app': '1' } },
      service: 'met',
      path: { strip: '/shop' },
      edge: { cors: { origin: ['https://a.example'] } }
    }
  }
  const routes = [
    { name: 'cart', group: 'shop', match: { path: '/shop/cart' } },
    { name: 'beta', group: 'shop', match: { path: '/shop/cart', headers: { 'x-beta': '1' } }, edge: { cors: false } },
    { name: 'else', match: { path: '/' }, service: 'unmet' }
  ]
  const { port, close } = await startGateway({ services, groups, routes })
  t.teardown(close)
  const found = async (...headers: string[]) => {
    const { headers: got, body } = await get(port, '/shop/cart/7', ['origin: https://a.example', ...headers])
    return [got['x-service'], body, got['access-control-allow-origin']]
  }
  t.same(await found('x-app: 1'), ['met', '/cart/7', 'https://a.example'])
  t.same(await found('x-app: 1', 'x-beta: 1'), ['met', '/cart/7', undefined])
  t.same(await found('x-beta: 1'), ['unmet', '/shop/cart/7', undefined], 'the conditions of the group remain')
})
