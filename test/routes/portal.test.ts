/** Portals: the OpenAPI documents of services as one, for the routes by which clients reach them. */
import http from 'node:http'
import { load } from 'js-yaml'
import type { Test } from 'tap'
import t from 'tap'
import type { RouteConfig } from '../../config/schema.ts'
import { gatewayPath } from '../../routes/portal/gateway-path.ts'
import { http2Client } from '../helpers/edge/direct-clients.ts'
import { configOf, get, startGateway } from '../helpers/gateway.ts'
import { selfSigned } from '../helpers/self-signed.ts'

type Documents = Record<string, string | (() => { status: number; body: string })>

/** Starts a service that has documents by their paths. */
async function startDocuments(t: Test, documents: Documents): Promise<string> {
  const server = http.createServer((request, response) => {
    const found = documents[request.url!]
    const { status, body } =
      typeof found === 'function' ? found() : { status: found === undefined ? 404 : 200, body: found }
    response.writeHead(status, { 'content-type': 'application/json' }).end(body)
  })
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`
}

const ok = { responses: { 200: { description: 'fine' } } }
const document = (paths: object, more: object = {}) =>
  JSON.stringify({ openapi: '3.0.3', info: { title: 'a service', version: '7' }, paths, ...more })

type Merged = {
  paths: Record<string, Record<string, Record<string, unknown>>>
  components: Record<string, Record<string, object>>
  'x-unavailable'?: string[]
}

async function portal(t: Test, config: object, more: object = {}) {
  const gateway = await startGateway(config, { log: true, ...more })
  t.teardown(gateway.close)
  const merged = async () => JSON.parse((await get(gateway.port, '/docs/openapi.json')).body) as Merged
  return { ...gateway, merged }
}

t.test('the path of a client is the reverse of match and path', async (t) => {
  const cases: [match: unknown, change: object | undefined, path: string, client: string | null][] = [
    ['/orders', undefined, '/orders/{id}', '/orders/{id}'],
    ['/orders', undefined, '/users', null],
    ['/orders', undefined, '/orders2', null],
    ['/', undefined, '/any', '/any'],
    ['/api/orders', { strip: true }, '/7', '/api/orders/7'],
    ['/api/orders', { strip: true }, '/', '/api/orders'],
    ['/api/orders', { strip: '/api' }, '/orders/{id}', '/api/orders/{id}'],
    ['/api/orders', { strip: '/api' }, '/users', null],
    ['/api', { rewrite: { prefix: '/v2' } }, '/v2/x', '/api/x'],
    ['/api', { rewrite: { prefix: '/' } }, '/x', '/api/x'],
    ['/api', { rewrite: { prefix: '/v2' } }, '/v1/x', null],
    [['/a', '/b'], undefined, '/b/x', '/b/x'],
    [{ exact: '/one' }, undefined, '/one', '/one'],
    [{ exact: '/one' }, undefined, '/one/x', null],
    ['/u/:user(^[0-9]+$)', undefined, '/u/{id}', '/u/{id}'],
    ['/u/:user', { rewrite: { path: '/v2/user/:user' } }, '/v2/user/{id}', '/u/{id}'],
    ['/u/:user', { rewrite: { path: '/v2/user/:user' } }, '/v2/users/{id}', null],
    ['/files/*', undefined, '/files/{name}', '/files/{name}'],
    ['/u/:user', undefined, `/u/${'{'.repeat(200_000)}`, null],
    ['/x', { rewrite: { regex: '^/x$', to: '/y' } }, '/y', null]
  ]
  for (const [path, change, called, client] of cases) {
    const route = { match: { path }, ...(change && { path: change }) } as unknown as RouteConfig
    t.equal(gatewayPath(route, called), client, `${JSON.stringify(path)} ${JSON.stringify(change ?? null)} ${called}`)
  }
})

t.test('operations appear under the paths of the routes, with credentials, limits and errors', async (t) => {
  const schemas = {
    Order: {
      type: 'object',
      properties: {
        total: { type: 'number', minimum: 0, exclusiveMinimum: true },
        note: { type: 'string', nullable: true },
        of: { $ref: '#/components/schemas/User' }
      }
    },
    User: { type: 'string' },
    Hidden: { type: 'string' }
  }
  const body = { content: { 'application/json': { schema: { $ref: '#/components/schemas/Order' } } } }
  const url = await startDocuments(t, {
    '/v1/openapi.json': document(
      {
        '/orders': {
          get: { operationId: 'list', ...ok },
          post: { requestBody: body, ...ok },
          parameters: [{ name: 'q', in: 'query', schema: {} }]
        },
        '/internal': { get: ok }
      },
      { servers: [{ url: '/v1' }], components: { schemas } }
    ),
    '/users.yaml':
      'openapi: 3.1.0\npaths:\n  /users/{id}:\n    get: { responses: { "404": { description: none } }, security: [{ own: [] }] }\ncomponents: { securitySchemes: { own: { type: http, scheme: basic } } }\n'
  })
  const { merged, port } = await portal(t, {
    services: { orders: { instances: [`${url}/v1`] }, users: { instances: [url] } },
    consumers: [{ name: 'a', keyAuth: { hash: `sha256:${'0'.repeat(64)}` } }],
    routes: [
      {
        name: 'orders',
        match: { path: '/api/orders', methods: ['GET', 'POST'] },
        service: 'orders',
        path: { strip: '/api' },
        edge: { keyAuth: {}, rateLimit: { max: 9, window: '1m' } }
      },
      { name: 'users', match: { path: '/users' }, service: 'users' },
      {
        name: 'docs',
        match: { path: '/docs' },
        portal: { title: 'Shop <b>', services: { orders: { path: '/openapi.json' }, users: { path: '/users.yaml' } } }
      }
    ]
  })
  const { paths, components } = await merged()
  t.strictSame(Object.keys(paths), ['/api/orders', '/users/{id}'], 'what no route leads to is left out')
  const { get: list, post } = paths['/api/orders']!
  t.match(list, {
    operationId: 'orders.list',
    security: [{ apiKey: [] }],
    tags: ['orders'],
    parameters: [{ name: 'q' }],
    'x-rate-limit': [{ max: 9, seconds: 60 }]
  })
  t.match(Object.keys(list!.responses as object), ['200', '401', '429', '502', '503', '504'])
  t.match(post!.responses, { 413: { $ref: '#/components/responses/gateway.413' } }, 'only with a body')
  t.strictSame(
    Object.keys(components.schemas!).sort(),
    ['gateway.Error', 'orders.Order', 'orders.User'],
    'only what is used'
  )
  t.strictSame(components.schemas!['orders.Order'], {
    type: 'object',
    properties: {
      total: { type: 'number', exclusiveMinimum: 0 },
      note: { type: ['string', 'null'] },
      of: { $ref: '#/components/schemas/orders.User' }
    }
  })
  t.match(
    paths['/users/{id}']!.get,
    { responses: { 404: { description: 'none' } }, security: [{ 'users.own': [] }] },
    "the service's own credentials"
  )
  t.match(components.securitySchemes, { apiKey: { in: 'header', name: 'x-api-key' }, 'users.own': { scheme: 'basic' } })

  const yaml = await get(port, '/docs/openapi.yaml')
  t.same(load(yaml.body), await merged(), 'YAML has the same content')
  const page = await get(port, '/docs')
  t.match(page.headers['content-security-policy'], /^default-src 'none'; style-src 'sha256-/)
  t.match(page.body, 'Shop &lt;b&gt;')
  t.notMatch(page.body, 'Shop <b>')
  t.equal((await get(port, '/docs', [`if-none-match: ${page.headers.etag}`])).status, 304)
  // As compression changes the tag of a response.
  t.equal((await get(port, '/docs', [`if-none-match: "x", W/${page.headers.etag}`])).status, 304)
  t.equal((await get(port, '/docs', [], 'HEAD')).headers['content-length'], page.headers['content-length'])
  t.equal((await get(port, '/docs/more')).status, 404)
  t.match(await get(port, '/docs', [], 'POST'), { status: 405, headers: { allow: 'GET, HEAD' } })
})

t.test('documents that are missing, malformed, too large or hostile harm no others', async (t) => {
  let isUp = false
  const recovering = () => (isUp ? { status: 200, body: document({ '/r': { get: ok } }) } : { status: 500, body: 'no' })
  const cyclic = 'openapi: 3.1.0\npaths:\n  /c: { get: { responses: &a { x: *a } } }\n'
  const deep = `{"openapi":"3.1.0","paths":{"/d":{"get":${'{"a":'.repeat(300)}1${'}'.repeat(300)}}}}`
  const hostile = `{"openapi":"3.1.0","paths":{"/h":{"get":{"summary":"<script>alert(1)</script>","__proto__":{"polluted":true},"responses":{"200":{"$ref":"http://evil.example/x"}}}}}}`
  const url = await startDocuments(t, {
    '/good': document({ '/g': { get: ok } }),
    '/recovering': recovering,
    '/text': 'hello',
    '/cyclic': cyclic,
    '/deep': deep,
    '/hostile': hostile,
    '/large': `{"openapi":"3.1.0","paths":{},"x":"${'x'.repeat(70_000)}"}`
  })
  const names = ['good', 'recovering', 'text', 'cyclic', 'deep', 'hostile', 'large']
  let ahead = 0
  const now = Date.now
  t.intercept(Date, 'now', { value: () => now() + ahead })
  const { merged, port, log } = await portal(t, {
    services: Object.fromEntries(names.map((name) => [name, { instances: [url] }])),
    routes: [
      ...names.map((name) => ({ name, match: { path: `/${name[0]}` }, service: name })),
      {
        name: 'docs',
        match: { path: '/docs' },
        portal: {
          maxDocumentSize: '60kb',
          services: Object.fromEntries(names.map((name) => [name, { path: `/${name}` }]))
        }
      }
    ].filter(
      ({ name }, index, all) =>
        all.findIndex((each) => each.name[0] === name[0] && each.name !== 'docs' && name !== 'docs') === index ||
        name === 'docs'
    )
  } as object)
  const first = await merged()
  t.strictSame(first['x-unavailable'], ['cyclic', 'deep', 'large', 'recovering', 'text'])
  t.match(first.paths, { '/g': {}, '/h': { get: { responses: { 200: {} } } } })
  t.equal(({} as { polluted?: boolean }).polluted, undefined)
  t.match((await get(port, '/docs')).body, '&lt;script&gt;alert(1)&lt;/script&gt;')
  t.ok(log.some(({ msg }) => String(msg).includes('the OpenAPI document of a service is not available')))
  isUp = true
  t.match((await merged())['x-unavailable'], ['cyclic'], 'not asked for each request')
  ahead = 6000
  await merged()
  t.match(Object.keys((await merged()).paths), ['/g', '/h', '/r'], 'found later')
  isUp = false
  ahead = 400_000
  t.match((await merged()).paths, { '/r': {} }, 'the last document stays')
})

t.test('a portal works over HTTP/2, and any concern may guard it', async (t) => {
  const url = await startDocuments(t, { '/o': document({ '/x': { get: ok } }) })
  const gateway = await startGateway({
    listen: { tls: selfSigned(t), http2: true },
    services: { s: { instances: [url] } },
    consumers: [
      { name: 'a', basicAuth: { username: 'a', hash: '$2b$04$wA3QwXnVbA2nT3xPp2m4wuQ0q0p0k0C0bQm0Q0H0d0l0m0n0o0p0q' } }
    ],
    routes: [
      { name: 's', match: { path: '/x' }, service: 's' },
      { name: 'docs', match: { path: '/docs' }, portal: { services: { s: { path: '/o' } } } },
      {
        name: 'closed',
        match: { path: '/closed' },
        portal: { services: { s: { path: '/o' } } },
        edge: { basicAuth: {} }
      }
    ]
  })
  t.teardown(gateway.close)
  const ask = await http2Client(t, gateway.port)
  const { status, headers, body } = await ask('/docs/openapi.json')
  t.equal(status, 200)
  t.equal(Number(headers['content-length']), body.length)
  t.match(JSON.parse(body), { openapi: '3.1.0', paths: { '/x': {} } })
  t.equal((await ask('/closed')).status, 401)
})

t.test('faults are reported with their place', async (t) => {
  const services = { a: { instances: ['http://127.0.0.1:9'] }, b: { instances: ['http://127.0.0.1:9'] } }
  const faultOf = (docs: object, extra: object = {}) => {
    const routes = [
      { name: 'a', match: { path: '/a' }, service: 'a' },
      { name: 'docs', match: { path: '/docs' }, ...docs }
    ]
    return () => configOf({ services, routes, ...extra })
  }
  const portal = { services: { a: { path: '/o' } } }
  t.throws(faultOf({ portal: {} }), /routes\[1\]\.portal: missing key "services"/)
  t.throws(
    faultOf({ portal: { services: { c: { path: '/o' } } } }),
    /routes\[1\]\.portal\.services\.c: unknown service "c"/
  )
  t.throws(
    faultOf({ portal: { services: { a: { path: 'o' } } } }),
    /routes\[1\]\.portal\.services\.a\.path: expected a path that starts with \//
  )
  t.throws(
    faultOf({ portal: { services: { a: { file: '/none.yaml' } } } }),
    /routes\[1\]\.portal\.services\.a\.file: no such file/
  )
  t.throws(faultOf({ portal, service: 'a' }), /routes\[1\]\.service: a route has either portal or a service/)
  t.throws(
    faultOf({ portal, match: { path: '/docs/:x' } }),
    /routes\[1\]\.match\.path: a portal needs one plain prefix/
  )
  t.throws(faultOf({ portal, path: { strip: '/docs' } }), /routes\[1\]\.path\.strip: no effect with portal/)
})
