/** Paths that common servers take for one another have the same protection; plugins' own routes keep their place. */
import http2 from 'node:http2'
import type { RouteOptions } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import type { GatewayOptions } from '../helpers/gateway.ts'
import { get, startGateway, startService } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)
const jwt = { secret: 'x'.repeat(32) }

/** A gateway in front of a service that responds with the target that it received. */
async function routed(t: Test, routes: object[], listen: object = {}, options: GatewayOptions = {}) {
  const service = await startService((request, response) => response.end(request.url))
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      listen,
      services: { any: { instances: [service.url] } },
      routes: routes.map((route) => ({ service: 'any', ...route }))
    },
    options
  )
  t.teardown(gateway.close)
  return gateway
}

const protectedRoutes = [
  { name: 'open', match: { path: '/' } },
  { name: 'metadata', match: { path: '/odata/$metadata' }, edge: { jwt } },
  { name: 'me', match: { path: '/u/@me' }, edge: { jwt } },
  { name: 'reserved', match: { path: '/r/a:b+c=d&e,f' }, edge: { jwt } },
  { name: 'users', match: { path: '/api/users' }, edge: { jwt } },
  { name: 'admin', match: { path: { exact: '/admin' } }, edge: { jwt } },
  { name: 'secret', match: { path: '/p/:id/secret' }, edge: { jwt } }
]

/** Each leads to a protected route, in the eyes of some common server. */
const disguised: readonly (readonly [target: string, status: number])[] = [
  ['/odata/%24metadata', 401],
  ['/u/%40me', 401],
  ['/r/a%3Ab%2Bc%3Dd%26e%2Cf', 401],
  ['/api/users;x', 400],
  ['/api;x=1/users', 400],
  ['/api/users%3Bx', 400],
  ['/API/users', 400],
  ['/api/users.', 400],
  ['/api/users%20', 400],
  ['/%20api/users', 400],
  ['/api%20/users', 400],
  ['/api/%09users', 400],
  ['/api/users%c2%85', 400],
  ['/api/users%7f', 400],
  ['/api%EF%BC%8Fusers', 400],
  ['/api%E2%81%84users', 400],
  ['/api%EF%BC%BCusers', 400],
  ['/api/users%2E', 400],
  ['/admin/', 400],
  ['/p/1/secret/', 400],
  ['/api/users/', 401],
  ['//api//users', 401]
]

t.test('no spelling of a protected path reaches an open route', async (t) => {
  const { port, log } = await routed(t, protectedRoutes, {}, { log: true })
  for (const [target, expected] of disguised) {
    const { status, body } = await get(port, target)
    t.equal(status, expected, target)
    const code = expected === 401 ? 'JW_TOKEN_MISSING' : 'JW_AMBIGUOUS_PATH'
    t.match(JSON.parse(body), { code }, target)
  }
  for (const target of [
    '/',
    '/api',
    '/Other/X.',
    '/admin/x',
    '/p/1/secrets',
    '/caf%E9',
    '/caf%C3%A9%EF%BC%8Fx',
    '/a%40b?x=;y'
  ]) {
    t.match(await get(port, target), { status: 200, body: target }, `${target} is forwarded byte for byte`)
  }
  const refused = disguised.filter(([, expected]) => expected === 400)
  t.equal(log.filter(({ error }) => error === 'JW_AMBIGUOUS_PATH').length, refused.length, 'each refusal is logged')
})

t.test('no spelling of a protected path reaches an open route over HTTP/2', async (t) => {
  const { port } = await routed(t, protectedRoutes, { tls: { cert, key }, http2: true })
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const ask = (path: string) =>
    new Promise<string>((resolve, reject) => {
      const stream = session.request({ ':path': path })
      let status = 0
      let text = ''
      stream.on('response', (fields) => {
        status = Number(fields[':status'])
      })
      stream.on('data', (chunk: Buffer) => {
        text += chunk.toString()
      })
      stream.on('error', reject)
      stream.on('end', () => resolve(status === 200 ? text : String(status)))
    })
  for (const [target, expected] of disguised) t.equal(await ask(target), String(expected), target)
  t.equal(await ask('/caf%E9/x?y'), '/caf%E9/x?y')
})

t.test('path parameters are forwarded byte for byte if the route allows them', async (t) => {
  const { port } = await routed(t, [
    { name: 'api', match: { path: '/api' }, path: { strip: '/api', parameters: 'pass' } },
    { name: 'admin', match: { path: '/api/admin' }, edge: { jwt } },
    { name: 'other', match: { path: '/other' } }
  ])
  t.match(await get(port, '/api;v=1/users;w=2/7%3Bx'), { status: 200, body: '/users;w=2/7%3Bx' })
  for (const target of ['/api/admin;x=1/users', '/api;v=1/admin', '/other;x', '/api/;/admin', '/api/..;/other']) {
    t.equal((await get(port, target)).status, 400, target)
  }
})

t.test('an encoded slash that a route allows does not bypass a protected route', async (t) => {
  const { port } = await routed(t, [
    { name: 'all', match: { path: '/' }, path: { encodedSlash: 'pass' } },
    { name: 'admin', match: { path: '/api/admin' }, edge: { jwt } }
  ])
  t.match(await get(port, '/api/a%2Fb'), { status: 200, body: '/api/a%2Fb' })
  for (const target of ['/api%2Fadmin', '/api/%2fadmin/x', '/%2Fapi/admin', '/API%2Fadmin']) {
    t.equal((await get(port, target)).status, 400, target)
  }
})

t.test('readings can be `distinct` if no service has them, or `ignore` if all have them', async (t) => {
  const distinct = { paths: { case: 'distinct', trailingSlash: 'distinct', trailingDot: 'distinct' } }
  const lenient = await routed(t, protectedRoutes, distinct)
  const ignore = { paths: { case: 'ignore', trailingSlash: 'ignore', trailingDot: 'ignore' } }
  const alike = await routed(t, protectedRoutes, ignore)
  for (const target of ['/API/users', '/api/users.', '/admin/', '/p/1/secret/']) {
    t.match(await get(lenient.port, target), { status: 200, body: target }, target)
    t.equal((await get(alike.port, target)).status, 401, target)
  }
})

t.test('routes of plugins have precedence over less specific configured ones', async (t) => {
  const { port } = await routed(
    t,
    [
      { name: 'all', match: { path: '/' } },
      { name: 'api', match: { path: '/api' } },
      { name: 'user', match: { path: '/users/:id' } }
    ],
    {},
    {
      before: (server) => {
        for (const url of ['/own', '/api/:x', '/files/*', '/:page', '/api', '/users/me']) {
          server.get(url, async () => `own ${url}`)
        }
      }
    }
  )
  for (const [target, body] of [
    ['/own', 'own /own'],
    ['/own?x=1', 'own /own'],
    ['/own/x', '/own/x'],
    ['/api/x', 'own /api/:x'],
    ['/api/x/y', '/api/x/y'],
    ['/files/a/b', 'own /files/*'],
    ['/page', 'own /:page'],
    ['/api', 'own /api'],
    ['/users/me', 'own /users/me'],
    ['/users/you', '/users/you'],
    ['/', '/'],
    ['/x/y', '/x/y']
  ] as const) {
    t.equal((await get(port, target)).body, body, target)
  }
  t.equal((await get(port, '/own', [], 'POST')).body, '/own')
})

t.test('hooks and handlers get the client’s method, URL and parameters, never the router’s', async (t) => {
  const seen: unknown[] = []
  const kept: RouteOptions[] = []
  const { port } = await routed(
    t,
    [
      { name: 'user', match: { path: '/users/:id/files/*' } },
      { name: 'api', match: { path: '/api', methods: ['POST', 'PUT'] } }
    ],
    {},
    {
      before: (server) => {
        server.addHook('onRequest', async ({ method, url, params, query, routeOptions }) => {
          seen.push([method, url, { ...(params as object) }, { ...(query as object) }])
          seen.push([routeOptions.method, routeOptions.url])
        })
        server.addHook('onRoute', (options) => {
          const { config, method, url, path } = options
          if (config?.route === undefined) return
          seen.push([config.route.name, [...method], url, path])
          kept.push(options)
        })
      }
    }
  )
  t.strictSame(seen.splice(0), [
    ['user', ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'], '/users/:id/files/*', '/users/:id/files/*'],
    ['api', ['POST', 'PUT'], '/api', '/api']
  ])
  t.strictSame(
    kept.map(({ method, url }) => [method, url]),
    [
      [['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'], '/users/:id/files/*'],
      [['POST', 'PUT'], '/api']
    ]
  )
  t.equal((await get(port, '/users/a%2520%40/files/b%3F/c%E9?q=1&r=%C3%A9')).status, 200)
  t.strictSame(seen.splice(0), [
    ['GET', '/users/a%2520%40/files/b%3F/c%E9?q=1&r=%C3%A9', { id: 'a%20@', '*': 'b?/cé' }, { q: '1', r: 'é' }],
    [['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'], '/users/:id/files/*']
  ])
  t.equal((await get(port, '/api/x', [], 'PUT')).status, 200)
  t.strictSame(seen.splice(0), [
    ['PUT', '/api/x', { '*': 'x' }, {}],
    [['POST', 'PUT'], '/api']
  ])
})
