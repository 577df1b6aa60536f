// slow: takes about 4 s
import type { Test } from 'tap'
import t from 'tap'
import type { RunningGateway } from '../helpers/gateway.ts'
import { configOf, get, parse, raw, startEcho, startGateway, startService } from '../helpers/gateway.ts'

/** A gateway whose routes each lead to a service that says the route's name. */
async function routed(t: Test, routes: { name: string; match: object }[]): Promise<RunningGateway> {
  const service = await startService((request, response) => response.end(request.headers['x-route']))
  const gateway = await startGateway(
    {
      services: { any: { instances: [service.url] } },
      routes: routes.map((route) => ({ ...route, service: 'any' }))
    },
    {
      before: (server) => {
        server.after(() => {})
        server.addHook('preHandler', async (request) => {
          const { route } = request.routeOptions.config
          request.upstreamHeaders = ['x-route', route?.name ?? '']
        })
      }
    }
  )
  t.teardown(service.close)
  t.teardown(gateway.close)
  return gateway
}

const served = async ({ port }: RunningGateway, target: string, headers: string[] = [], method = 'GET') => {
  const { status, body } = await get(port, target, headers, method)
  return status === 200 ? body : status
}

t.test('a prefix ends at a segment, the longest wins; exact paths and patterns match no longer path', async (t) => {
  const gateway = await routed(t, [
    { name: 'root', match: { path: '/root' } },
    { name: 'api', match: { path: '/api' } },
    { name: 'orders', match: { path: '/api/orders/' } },
    { name: 'exact', match: { path: { exact: '/api/orders/new' } } },
    { name: 'colon', match: { path: { exact: '/v1/a:b' } } },
    { name: 'user', match: { path: '/users/:id' } },
    { name: 'files', match: { path: '/files/*' } }
  ])
  const expected: [string, string | number][] = [
    ['/api', 'api'],
    ['/api/', 'api'],
    ['/api?x', 'api'],
    ['/apis', 404],
    ['/ap', 404],
    ['/API', 404],
    ['/api/orders', 'orders'],
    ['/api/orders/', 'orders'],
    ['/api/orders/1/2?x=/y', 'orders'],
    ['/api/ordersX', 'api'],
    ['/api/order', 'api'],
    ['/api/orders/new', 'exact'],
    ['/api/orders/new/', 'orders'],
    ['/api/orders/newer', 'orders'],
    ['/v1/a:b', 'colon'],
    ['/v1/aXb', 404],
    ['/users/7', 'user'],
    ['/users/', 404],
    ['/users', 404],
    ['/users/7/x', 404],
    ['/files/', 'files'],
    ['/files/a/b', 'files'],
    ['/files', 404],
    ['/', 404],
    // Other spellings of one path meet the same route.
    ['/%61pi/orders', 'orders'],
    ['/api/%6frders/x', 'orders'],
    ['/api%20', 404],
    ['//api///orders//x', 'orders'],
    ['/api//orders/new', 'exact']
  ]
  for (const [target, route] of expected) t.equal(await served(gateway, target), route, target)
})

t.test('host: exact before wildcard before none, whatever the case, the port and a last dot', async (t) => {
  const gateway = await routed(t, [
    { name: 'exact', match: { path: '/', hosts: ['API.example.com'] } },
    { name: 'longer', match: { path: '/', hosts: ['*.eu.example.com'] } },
    { name: 'wild', match: { path: '/', hosts: ['*.example.com'] } },
    { name: 'none', match: { path: '/' } },
    { name: 'only', match: { path: '/only', hosts: ['only.example.com'] } }
  ])
  const expected: [string, string | number][] = [
    ['api.example.com', 'exact'],
    ['Api.Example.COM:8443', 'exact'],
    ['api.example.com.', 'exact'],
    ['api.example.com.:80', 'exact'],
    ['www.example.com.', 'wild'],
    ['www.example.com', 'wild'],
    ['a.b.example.com:80', 'wild'],
    ['a.eu.example.com', 'longer'],
    ['eu.example.com', 'wild'],
    ['example.com', 'none'],
    ['.example.com', 400], // no host has an empty label
    ['xexample.com', 'none'],
    ['api.example.com.evil.org', 'none'],
    ['[::1]:80', 'none']
  ]
  for (const [host, route] of expected) t.equal(await served(gateway, '/x', [`Host: ${host}`]), route, host)
  t.equal(
    parse(await raw(gateway.port, 'GET /x HTTP/1.0\r\n\r\n')).body,
    'none',
    'HTTP/1.0 without Host matches routes without hosts'
  )
  t.equal(await served(gateway, '/only/x', ['Host: only.example.com']), 'only')
  t.equal(
    await served(gateway, '/only/x', ['Host: api.example.com']),
    'exact',
    'a shorter path with the header matches'
  )
})

t.test('headers: more conditions before fewer, and a path whose constraints fail falls back', async (t) => {
  const gateway = await routed(t, [
    { name: 'both', match: { path: '/api', headers: { 'X-Beta': '1', 'x-team': 'a' } } },
    { name: 'beta', match: { path: '/api', headers: { 'x-beta': '1' } } },
    { name: 'host', match: { path: '/api', hosts: ['h1'] } },
    { name: 'plain', match: { path: '/api' } },
    { name: 'deep', match: { path: '/api/deep', headers: { 'x-beta': '2' } } }
  ])
  t.equal(await served(gateway, '/api'), 'plain')
  t.equal(await served(gateway, '/api', ['x-beta: 1']), 'beta')
  t.equal(await served(gateway, '/api', ['X-BETA: 1', 'X-Team: a']), 'both')
  t.equal(await served(gateway, '/api', ['x-beta: 1, 1']), 'plain')
  t.equal(
    await served(gateway, '/api', ['Host: h1', 'x-beta: 1', 'x-team: a']),
    'host',
    'a host has precedence over headers'
  )
  t.equal(await served(gateway, '/api/deep'), 'plain')
  t.equal(await served(gateway, '/api/deep', ['x-beta: 2']), 'deep')
})

t.test('methods: GET includes HEAD; a method without a route is 405 with Allow', async (t) => {
  const gateway = await routed(t, [
    { name: 'read', match: { path: '/api/orders', methods: ['GET'] } },
    { name: 'write', match: { path: '/api/orders', methods: ['POST', 'PUT'] } },
    { name: 'rest', match: { path: '/rest' } },
    { name: 'hosted', match: { path: '/hosted', methods: ['GET'], hosts: ['a'] } },
    { name: 'webdav', match: { path: '/dav', methods: ['PROPFIND'] } }
  ])
  t.equal(await served(gateway, '/api/orders'), 'read')
  t.equal((await get(gateway.port, '/api/orders', [], 'HEAD')).status, 200)
  t.equal(await served(gateway, '/api/orders', [], 'POST'), 'write')
  t.equal(await served(gateway, '/dav/x', [], 'PROPFIND'), 'webdav')
  t.equal(await served(gateway, '/rest', [], 'OPTIONS'), 'rest', 'OPTIONS reaches the service')
  const refused = await get(gateway.port, '/api/orders/7', ['x-request-id: abc'], 'DELETE')
  t.equal(refused.status, 405)
  t.equal(refused.headers.allow, 'GET, HEAD, POST, PUT')
  t.equal(refused.headers['x-request-id'], 'abc')
  t.strictSame(JSON.parse(refused.body), {
    statusCode: 405,
    code: 'JW_METHOD_NOT_ALLOWED',
    error: 'Method Not Allowed',
    message: 'No route accepts the method DELETE for this path',
    requestId: 'abc'
  })
  t.equal((await get(gateway.port, '/api/orders', [], 'OPTIONS')).headers.allow, 'GET, HEAD, POST, PUT')
  t.equal(
    (await get(gateway.port, '/rest', [], 'PROPFIND')).status,
    405,
    'a method that Node knows but no route takes gets 405'
  )
  t.equal(await served(gateway, '/hosted', ['Host: a'], 'POST'), 405)
  t.equal(await served(gateway, '/hosted', ['Host: b'], 'POST'), 404, 'another host gets 404')
})

t.test('a request without a route is 404 in the format of all errors', async (t) => {
  const gateway = await routed(t, [{ name: 'api', match: { path: '/api' } }])
  for (const [method, more] of [
    ['GET', []],
    ['POST', ['content-type: nonsense', 'content-length: 0']],
    ['OPTIONS', []]
  ] as const) {
    const { status, body, headers } = await get(gateway.port, '/nowhere?token=1', [...more], method)
    t.equal(status, 404, method)
    const { requestId, ...rest } = JSON.parse(body) as Record<string, unknown>
    t.equal(requestId, headers['x-request-id'])
    const message = 'No route matches this request'
    t.strictSame(rest, { statusCode: 404, code: 'JW_NO_ROUTE', error: 'Not Found', message })
  }
  t.equal((await get(gateway.port, '*', [], 'OPTIONS')).status, 204)
})

t.test('`config` of a route reaches the plugins, and cannot replace the route', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const seen: unknown[] = []
  const config = { stamp: { colour: 'blue' } }
  const routes = [{ name: 'api', match: { path: '/api' }, service: 'any', config: { ...config, route: 'mine' } }]
  t.throws(() => configOf({ services: { any: { instances: [echo.url] } }, routes }), /config\.route: unknown key/)
  const gateway = await startGateway(
    {
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'api', match: { path: '/api' }, service: 'any', config }]
    },
    {
      before: (server) =>
        void server.addHook('onRequest', async (request) => void seen.push(request.routeOptions.config))
    }
  )
  t.teardown(gateway.close)
  t.equal((await get(gateway.port, '/api')).status, 200)
  t.match(seen, [{ stamp: { colour: 'blue' }, route: { name: 'api' } }])
})

t.test('each of a thousand routes is found', async (t) => {
  const routes = Array.from({ length: 1000 }, (_, n) => ({
    name: `r${n}`,
    match: { path: `/api/v${n % 7}/thing${n}` }
  }))
  const service = await startService((request, response) => response.end(request.url))
  t.teardown(service.close)
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: routes.map((route) => ({ ...route, service: 'any', path: { rewrite: { prefix: `/${route.name}` } } }))
  })
  t.teardown(gateway.close)
  for (const n of [0, 499, 999]) t.equal(await served(gateway, `/api/v${n % 7}/thing${n}/x`), `/r${n}/x`)
})

t.test('a host that no route can match is 404, or 421 if configured', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [{ name: 'a', match: { path: '/a', hosts: ['a.example.com', '*.b.example.com'] }, service: 'any' }]
  const services = { any: { instances: [echo.url] } }
  for (const [unknownHost, expected] of [
    [undefined, 404],
    [421, 421]
  ] as const) {
    const gateway = await startGateway({ listen: { ...(unknownHost && { unknownHost }) }, services, routes })
    t.teardown(gateway.close)
    for (const [host, path, status] of [
      ['a.example.com:80', '/a', 200],
      ['x.b.example.com', '/a', 200],
      ['a.example.com', '/b', 404],
      ['b.example.com', '/a', expected],
      ['[::1]', '/a', expected]
    ] as const) {
      const response = await get(gateway.port, path, [`Host: ${host}`])
      t.equal(response.status, status, `${host} ${path}`)
      if (status === 421) t.match(JSON.parse(response.body), { code: 'JW_UNKNOWN_HOST' })
    }
  }
})

t.test('each of ten thousand hosts on one path is found', async (t) => {
  const routes = Array.from({ length: 10_000 }, (_, n) => ({
    name: `r${n}`,
    match: { path: '/', hosts: [n % 2 === 0 ? `h${n}.example.com` : `*.h${n}.example.com`] }
  }))
  const gateway = await routed(t, routes)
  for (const n of [0, 5000, 9998]) t.equal(await served(gateway, '/x', [`Host: h${n}.example.com`]), `r${n}`)
  for (const n of [1, 5001, 9999]) t.equal(await served(gateway, '/x', [`Host: www.h${n}.example.com:80`]), `r${n}`)
  t.equal(await served(gateway, '/x', ['Host: h1.example.com']), 404)
})
