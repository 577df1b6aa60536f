// Routes that plugins add by themselves: always logged and counted, under the edge's concerns if configured.
import http2 from 'node:http2'
import { join } from 'node:path'
import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import { pino } from 'pino'
import type { Test } from 'tap'
import t from 'tap'
import { gateway } from '../../app.ts'
import { parseConfig } from '../../plugins/config.ts'
import { serverOptions } from '../../plugins/edge/protocol/listener.ts'
import { claims, secret, token } from '../helpers/edge/tokens.ts'
import { eventually } from '../helpers/eventually.ts'
import { get } from '../helpers/gateway.ts'
import { folder, service } from '../helpers/plugins.ts'
import { selfSigned } from '../helpers/self-signed.ts'

interface Running {
  url: string
  server: FastifyInstance
  lines: Record<string, unknown>[]
}

async function start(t: Test, routes: string, more: object = {}, plugin: object = {}): Promise<Running> {
  const text = `export default async function bff (fastify) { ${routes} }`
  const root = await folder(t, { 'bff.mjs': text })
  const config = parseConfig(
    JSON.stringify({ listen: { port: 0 }, admin: false, plugins: [{ path: './bff.mjs', ...plugin }], ...more }),
    join(root, 'gateway.yaml'),
    {}
  )
  const lines: Record<string, unknown>[] = []
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      lines.push(JSON.parse(chunk.toString()) as Record<string, unknown>)
      done()
    }
  })
  const loggerInstance = pino({ level: 'info' }, stream)
  const server = Fastify({ ...(serverOptions(config) as object), loggerInstance }) as unknown as FastifyInstance
  server.register(fp((fastify: FastifyInstance) => gateway(fastify, config)))
  t.teardown(() => server.close())
  return { url: await server.listen({ host: '127.0.0.1', port: 0 }), server, lines }
}

const bearer = (more: object = {}) => ({ authorization: `Bearer ${token(claims({ ...more }))}` })
const jwt = { secret, algorithms: ['HS256'] }

async function receive(url: string, init: RequestInit = {}) {
  const response = await fetch(url, init)
  const text = await response.text()
  return { status: response.status, headers: response.headers, text }
}

t.test('own routes have a request id, an access line and metrics without configuration', async (t) => {
  const { url, server, lines } = await start(
    t,
    `fastify.get('/home/:id', async () => 'home')
     fastify.post('/fails', async () => { throw new Error('no luck') })`
  )
  const home = await receive(`${url}/home/7?secret=1`, { headers: { 'x-request-id': 'one', 'user-agent': 'me' } })
  t.equal(home.headers.get('x-request-id'), 'one')
  t.equal((await receive(`${url}/fails`, { method: 'POST' })).status, 500)
  await eventually(() => lines.filter(({ msg }) => msg === 'request').length === 2)
  const [first, second] = lines.filter(({ msg }) => msg === 'request')
  t.match(first, {
    requestId: 'one',
    method: 'GET',
    path: '/home/7',
    route: '/home/:id',
    status: 200,
    ip: '127.0.0.1',
    agent: 'me'
  })
  t.match(second, { method: 'POST', path: '/fails', route: '/fails', status: 500, error: 'JW_PLUGIN_FAILED' })
  const metrics = await server.metrics.metrics()
  t.match(
    metrics,
    /jingwei_edge_requests_total\{route="\/home\/:id",method="GET",status="200",direction="north-south"\} 1/
  )
  t.match(
    metrics,
    /jingwei_edge_requests_total\{route="\/fails",method="POST",status="500",direction="north-south"\} 1/
  )
  t.match(metrics, /jingwei_edge_request_duration_seconds_count\{route="\/home\/:id",direction="north-south"\} 1/)
})

t.test('accessLog: false at the top level or on the route switches the access line off', async (t) => {
  const one = await start(t, `fastify.get('/home', async () => 'home')`, { edge: { accessLog: false } })
  await receive(`${one.url}/home`)
  const two = await start(
    t,
    `fastify.get('/quiet', { config: { edge: { accessLog: false } } }, async () => 'home')
     fastify.get('/home', async () => 'home')`
  )
  await receive(`${two.url}/quiet`)
  await receive(`${two.url}/home`)
  await eventually(() => two.lines.some(({ path }) => path === '/home'))
  t.notOk([...one.lines, ...two.lines].some(({ msg, path }) => msg === 'request' && path !== '/home'))
})

t.test('config.edge: true takes the options of the top level, an object sets them, and no key means off', async (t) => {
  const { url, lines } = await start(
    t,
    `const who = async ({ consumer }) => consumer?.id ?? 'anonymous'
     fastify.get('/top', { config: { edge: { jwt: true } } }, who)
     fastify.get('/open', who)
     fastify.get('/limited', { config: { edge: { jwt: true, rateLimit: { max: 1, window: '1h', by: 'consumer' } } } }, who)`,
    { edge: { jwt } }
  )
  t.equal((await receive(`${url}/open`)).text, 'anonymous')
  const refused = await receive(`${url}/top`)
  t.equal(refused.status, 401)
  t.match(refused.headers.get('www-authenticate'), /^Bearer/)
  t.equal((await receive(`${url}/top`, { headers: bearer() })).text, 'ann')
  const limited = async (sub: string) => (await receive(`${url}/limited`, { headers: bearer({ sub }) })).status
  t.same([await limited('ann'), await limited('ann'), await limited('bob')], [200, 429, 200])
  await eventually(() => lines.some(({ path, status }) => path === '/limited' && status === 429))
  t.match(
    lines.find(({ path, status }) => path === '/top' && status === 200),
    { consumer: 'ann' }
  )
})

t.test('true is a value of securityHeaders, with the top level on and off', async (t) => {
  for (const edge of [{}, { securityHeaders: true }, { securityHeaders: { xFrameOptions: 'DENY' } }]) {
    const { url } = await start(
      t,
      `fastify.get('/home', { config: { edge: { securityHeaders: true } } }, async () => 'home')`,
      { edge }
    )
    const { status, headers } = await receive(`${url}/home`)
    t.equal(status, 200)
    const isDeny = typeof edge.securityHeaders === 'object'
    t.equal(headers.get('x-frame-options'), isDeny ? 'DENY' : 'SAMEORIGIN', JSON.stringify(edge))
  }
})

t.test('concerns know the parameters of the path', async (t) => {
  const schema = '{ type: "object", properties: { id: { type: "integer" } } }'
  const edge = `{ validation: { path: ${schema} }, headers: { response: { set: { 'x-id': '{params.id}' } } } }`
  const more = `{ headers: { response: { set: { 'x-a': '{params.a}', 'x-b': '{params.b}', 'x-rest': '{params.*}' } } } }`
  const { url } = await start(
    t,
    `fastify.get('/orders/:id', { config: { edge: ${edge} } }, async () => 'order')
     fastify.register(async (child) => {
       child.get('/:a(^\\\\d+$)-:b/*', { config: { edge: ${more} } }, async () => 'file')
     }, { prefix: '/files' })`
  )
  const order = await receive(`${url}/orders/7`)
  t.match([order.status, order.headers.get('x-id')], [200, '7'])
  t.equal((await receive(`${url}/orders/x`)).status, 400)
  const { status, headers } = await receive(`${url}/files/12-ab/c/d`)
  t.match([status, headers.get('x-a'), headers.get('x-b'), headers.get('x-rest')], [200, '12', 'ab', 'c/d'])
  const unknown = `{ headers: { response: { set: { x: '{params.no}' } } } }`
  await t.rejects(start(t, `fastify.get('/orders/:id', { config: { edge: ${unknown} } }, async () => '')`), {
    message: /no parameter "no"/
  })
})

t.test('routes of one path are limited separately, by method and by host', async (t) => {
  const { url } = await start(
    t,
    `const limited = (max, more) => ({ ...more, config: { edge: { rateLimit: { max, window: '1h' } } } })
     fastify.get('/login', limited(100), async () => 'form')
     fastify.post('/login', limited(1), async () => 'in')
     fastify.get('/hosts', limited(1, { constraints: { host: 'a.example' } }), async () => 'a')
     fastify.get('/hosts', limited(1, { constraints: { host: /^b/ } }), async () => 'b')`
  )
  const remaining = async (path: string, method = 'GET', host = 'any') => {
    const { port } = new URL(url)
    const { status, headers } = await get(Number(port), path, [`Host: ${host}`], method)
    return `${status} ${headers['ratelimit-remaining']}`
  }
  t.same([await remaining('/login'), await remaining('/login')], ['200 99', '200 98'])
  t.same([await remaining('/login', 'POST'), await remaining('/login', 'POST')], ['200 0', '429 0'])
  t.equal(await remaining('/login'), '200 97')
  t.same([await remaining('/hosts', 'GET', 'a.example'), await remaining('/hosts', 'GET', 'b')], ['200 0', '200 0'])
  t.equal(await remaining('/hosts', 'GET', 'a.example'), '429 0')
})

t.test('each route verifies with its own key, and consumers of several issuers are distinct', async (t) => {
  const { url } = await start(
    t,
    `const who = async ({ consumer }) => consumer.id
     const jwt = { secret: 'another secret that is long enough', algorithms: ['HS256'], issuer: 'other' }
     fastify.get('/own', { config: { edge: { jwt } } }, who)
     fastify.get('/top', { config: { edge: { jwt: true } } }, who)`,
    { edge: { jwt: { ...jwt, issuer: 'top' } } }
  )
  const other = { authorization: `Bearer ${token(claims({ iss: 'other' }), 'another secret that is long enough')}` }
  t.equal((await receive(`${url}/own`, { headers: other })).text, 'other|ann')
  t.equal((await receive(`${url}/top`, { headers: bearer({ iss: 'top' }) })).text, 'top|ann')
  t.equal((await receive(`${url}/own`, { headers: bearer({ iss: 'top' }) })).status, 401)
  t.equal((await receive(`${url}/top`, { headers: other })).status, 401)
})

t.test('guarded: the top-level edge applies to all routes of the plugin, each of which may change it', async (t) => {
  const { url } = await start(
    t,
    `const who = async ({ consumer }) => consumer?.id ?? 'anonymous'
     fastify.get('/home', who)
     fastify.get('/open', { config: { edge: { jwt: false } } }, who)
     await fastify.register(async (below) => { below.get('/deep', who) }, { prefix: '/below' })`,
    { edge: { jwt } },
    { guarded: true }
  )
  for (const path of ['/home', '/below/deep']) {
    t.equal((await receive(url + path)).status, 401, path)
    t.equal((await receive(url + path, { headers: bearer() })).text, 'ann', path)
  }
  t.equal((await receive(`${url}/open`)).text, 'anonymous')
})

t.test('edge concerns run before the hooks of the route', async (t) => {
  const { url, server } = await start(
    t,
    `fastify.decorate('seen', [])
     const see = (name) => async ({ consumer }) => { fastify.seen.push(name + ' ' + consumer?.id) }
     fastify.get('/home', {
       onRequest: [see('onRequest')], preParsing: see('preParsing'), preHandler: see('preHandler'), config: { edge: { jwt: true } }
     }, async () => 'home')`,
    { edge: { jwt } }
  )
  const { seen } = server as unknown as { seen: string[] }
  await receive(`${url}/home`)
  t.same(seen, [])
  t.equal((await receive(`${url}/home`, { headers: bearer() })).text, 'home')
  t.same(seen, ['onRequest ann', 'preParsing ann', 'preHandler ann'])
})

t.test('CORS sets headers and responds to preflights for all methods of the path', async (t) => {
  const { url } = await start(
    t,
    `const edge = { cors: { origin: 'https://app.example.com' }, jwt: true }
     fastify.get('/home', { config: { edge } }, async () => 'home')
     fastify.put('/home', { config: { edge } }, async () => 'put')
     fastify.get('/open', async () => 'open')`,
    { edge: { jwt } }
  )
  const origin = 'https://app.example.com'
  const requested = { origin, 'access-control-request-method': 'PUT' }
  const preflight = await receive(`${url}/home`, { method: 'OPTIONS', headers: requested })
  t.equal(preflight.status, 204)
  t.equal(preflight.headers.get('access-control-allow-origin'), origin)
  t.equal(preflight.headers.get('access-control-allow-methods'), 'GET, HEAD, PUT')
  const refused = await receive(`${url}/home`, { headers: { origin } })
  t.equal(refused.status, 401)
  t.equal(refused.headers.get('access-control-allow-origin'), origin)
  const stranger = { ...requested, origin: 'https://evil.example' }
  const foreign = await receive(`${url}/home`, { method: 'OPTIONS', headers: stranger })
  t.equal(foreign.headers.get('access-control-allow-origin'), null)
  t.equal(
    (await receive(`${url}/home`, { method: 'OPTIONS' })).status,
    404,
    'OPTIONS without Access-Control-Request-Method is no preflight'
  )
  t.equal((await receive(`${url}/open`, { method: 'OPTIONS', headers: requested })).status, 404)
})

t.test('bodyLimit replaces the limit of the parsers, be it higher or lower', async (t) => {
  const { url } = await start(
    t,
    `fastify.post('/few', { config: { edge: { bodyLimit: '1kb' } } }, async ({ body }) => body.text.length)
     fastify.post('/many', { config: { edge: { bodyLimit: '2mb' } } }, async ({ body }) => body.text.length)
     fastify.post('/default', async ({ body }) => body.text.length)`
  )
  const post = (path: string, size: number) => {
    const body = JSON.stringify({ text: 'x'.repeat(size) })
    return receive(url + path, { method: 'POST', body, headers: { 'content-type': 'application/json' } })
  }
  t.equal((await post('/few', 500)).text, '500')
  t.match(await post('/few', 2000), { status: 413, text: /JW_BODY_TOO_LARGE/ })
  t.equal((await post('/many', 1_500_000)).text, '1500000')
  t.match(await post('/many', 3_000_000), { status: 413, text: /JW_BODY_TOO_LARGE/ })
  t.equal((await post('/default', 1_500_000)).status, 413)
})

t.test('request.mesh sends the headers of jwt.forward, which no client can forge on any route', async (t) => {
  const orders = await service(t, (request, response) =>
    response.end(JSON.stringify(request.headers['x-user'] ?? null))
  )
  const { url } = await start(
    t,
    `fastify.get('/home', { config: { edge: { jwt: true } } }, async (request) => ({ user: await request.mesh.json('orders', '/') }))`,
    {
      services: { orders: { instances: [orders] } },
      routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders', edge: { jwt: false } }],
      edge: { jwt: { ...jwt, forward: { sub: 'x-user' } } }
    }
  )
  t.equal((await receive(`${url}/home`, { headers: bearer() })).text, '{"user":"ann"}')
  t.equal((await receive(`${url}/orders`, { headers: { 'x-user': 'forged', x_user: 'forged' } })).text, 'null')
})

t.test('jwt and bodyLimit apply on own routes over HTTP/2 and TLS', async (t) => {
  const listen = { port: 0, tls: selfSigned(t), http2: true }
  const { url, lines } = await start(
    t,
    `fastify.post('/home', { config: { edge: { jwt: true, bodyLimit: '1kb' } } }, async ({ consumer, body }) => ({ id: consumer.id, body }))`,
    { listen, edge: { jwt } }
  )
  const session = http2.connect(url, { rejectUnauthorized: false })
  const post = async (headers: Record<string, string>, body: string) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': '/home',
      'content-type': 'application/json',
      ...headers
    })
    let status = 0
    let text = ''
    stream.on('response', (headers) => {
      status = Number(headers[':status'])
    })
    stream.setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk
    })
    stream.end(body)
    await new Promise((resolve) => stream.once('close', resolve))
    return { status, text }
  }
  t.match(await post({}, '{}'), { status: 401 })
  t.match(await post(bearer(), '{"a":1}'), { status: 200, text: '{"id":"ann","body":{"a":1}}' })
  t.match(await post(bearer(), JSON.stringify('x'.repeat(2000))), { status: 413 })
  session.close()
  await eventually(() => lines.filter(({ route }) => route === '/home').length === 3)
})

const faultyEdges: Record<string, [edge: string, message: RegExp]> = {
  'a key that does not exist': [
    '{ jwtt: true }',
    /route GET \/home: config\.edge\.jwtt: unknown key; did you mean "jwt"\?/
  ],
  'a key of an option that does not exist': [
    '{ rateLimit: { maxx: 1, window: "1s" } }',
    /config\.edge\.rateLimit.*max/
  ],
  'a value of another kind': [
    '{ bodyLimit: "much" }',
    /config\.edge\.bodyLimit: expected false or a mapping or a size/
  ],
  'true where the top level has nothing': [
    '{ cors: true }',
    /config\.edge\.cors: true takes the options of the top-level edge\.cors, which is off/
  ],
  'a concern of proxied routes': ['{ websocket: false }', /config\.edge\.websocket: unknown key/],
  'options that do not fit each other': [
    '{ jwt: { secret: "a secret that is long enough to sign", algorithms: ["RS256"] } }',
    /config\.edge\.jwt\.algorithms\[0\]: RS256/
  ],
  'a limit by consumer without one': [
    '{ rateLimit: { max: 1, window: "1s", by: "consumer" } }',
    /config\.edge\.rateLimit\.by: consumer: nothing on this route identifies the consumer/
  ],
  'a key file that is not there': [
    '{ jwt: { publicKey: "./gone.pem" } }',
    /config\.edge\.jwt\.publicKey: neither a PEM key nor a file/
  ],
  'no mapping': ['true', /config\.edge: expected a mapping/],
  'a function': ['{ cors: { origin: () => true } }', /config\.edge: origin is a function/]
}

for (const [what, [edge, message]] of Object.entries(faultyEdges)) {
  t.test(`a fault in config.edge stops the start and is reported with its route: ${what}`, async (t) => {
    const starting = start(t, `fastify.get('/home', { config: { edge: ${edge} } }, async () => 'home')`)
    await t.rejects(starting, { message })
    await t.rejects(starting, { message: /plugins\[0\]: .*route GET \/home: / })
  })
}

for (const [where, plugin, path] of [
  ['of the gateway', {}, '/missing'],
  ['below a prefix of the plugin', { prefix: '/bff' }, '/bff/missing'],
  ['below a prefix within the plugin', {}, '/nest/missing']
] as const) {
  t.test(`guarded: the top-level edge applies to a not-found handler ${where}`, async (t) => {
    const page = `function (request, reply) { reply.code(200).send('page for ' + request.consumer?.id) }`
    const set = `setNotFoundHandler({ preHandler: (request, reply, done) => { reply.header('x-own', 'yes'); done() } }, ${page})`
    const body = where.endsWith('within the plugin')
      ? `fastify.register(async (below) => { below.${set} }, { prefix: '/nest' })`
      : `fastify.${set}`
    const { url, server, lines } = await start(
      t,
      body,
      {
        edge: { jwt, cors: { origin: 'https://a.example' }, rateLimit: { max: 3, window: '1h' }, bodyLimit: '10b' },
        services: { orders: { instances: ['http://127.0.0.1:9'] } },
        routes: [{ name: 'orders', match: { path: '/orders', methods: ['GET'] }, service: 'orders' }]
      },
      { guarded: true, ...plugin }
    )
    const refused = await receive(url + path, { headers: { origin: 'https://a.example' } })
    t.match(JSON.parse(refused.text), { statusCode: 401, code: 'JW_TOKEN_MISSING' })
    t.equal(refused.headers.get('access-control-allow-origin'), 'https://a.example')
    t.equal(refused.headers.get('x-own'), null)
    const shown = await receive(url + path, { headers: bearer({ sub: 'u1' }) })
    t.match([shown.status, shown.text, shown.headers.get('x-own')], [200, /^page for .*u1$/, 'yes'])
    const large = await receive(url + path, {
      method: 'POST',
      headers: { ...bearer(), 'content-type': 'text/plain' },
      body: 'more than ten bytes'
    })
    t.equal(large.status, 413)
    t.equal((await receive(url + path, { headers: bearer() })).status, 429)
    const wrong = await receive(`${url}/orders`, { method: 'DELETE' })
    t.strictSame(
      [wrong.status, wrong.headers.get('allow') !== null],
      [405, true],
      '405 comes before the not-found handler'
    )
    await eventually(() => lines.filter(({ msg }) => msg === 'request').length === 5)
    const name = path.replace('missing', '*')
    const named = lines.filter(({ msg, route }) => msg === 'request' && route === name)
    t.equal(named.length, where === 'of the gateway' ? 5 : 4, 'each request is logged once')
    const counted = await server.metrics.metrics()
    t.match(counted, `jingwei_edge_requests_total{route="${name}",method="GET",status="401",direction="north-south"} 1`)
  })
}

t.test('an onSend hook that returns an invalid payload fails its requests, and the log names the plugin', async (t) => {
  const ways = { async: 'async () => VALUE', callback: '(request, reply, payload, done) => done(null, VALUE)' }
  const orders = await service(t, (_request, response) => response.end('ok'))
  for (const [way, hook] of Object.entries(ways)) {
    for (const value of ['({ a: 1 })', '7', 'new Uint8Array(3)', '() => {}']) {
      const { url, lines } = await start(
        t,
        `fastify.get('/own', async () => 'x')
         fastify.addHook('onSend', ${hook.replace('VALUE', value)})`,
        {
          services: { orders: { instances: [orders] } },
          routes: [{ name: 'orders', match: { path: '/orders' }, service: 'orders' }]
        }
      )
      for (const path of ['/own', '/orders', '/missing']) {
        const { status, text } = await receive(url + path)
        const what = `${way}, ${value}, ${path}`
        t.match([status, JSON.parse(text)], [500, { code: 'JW_PLUGIN_FAILED' }], what)
        t.notMatch(text, /returned/, what)
      }
      const faults = lines.filter(({ plugin, hook }) => plugin === 'bff' && hook === 'onSend')
      t.ok(faults.length >= 3 && faults.every(({ msg }) => /^plugin bff failed in onSend: it returned/.test(`${msg}`)))
    }
  }
})

t.test('an own GET route serves HEAD, as in Fastify', async (t) => {
  const echo = await service(t, (request, response) => void response.setHeader('x-method', request.method!).end('ok'))
  const proxy = { prefix: '/via', upstream: 'http://any.mesh', httpMethods: ['GET', 'POST'] }
  const { url, server, lines } = await start(
    t,
    `const runs = async (request, reply) => void reply.header('x-runs', (reply.getHeader('x-runs') ?? '') + '1')
     fastify.get('/plain', { onRequest: runs }, async () => 'hello')
     fastify.get('/limited', { config: { edge: { jwt: true, rateLimit: { max: 2, window: '1m' } } } }, async () => 'hello')
     fastify.get('/cors', { config: { edge: { cors: { origin: 'https://a.example' } } } }, async () => 'hello')
     fastify.head('/own', async (request, reply) => reply.header('x-own', 'yes').send())
     fastify.get('/own', async () => 'hello')`,
    {
      edge: { jwt },
      services: { any: { instances: [echo] } },
      plugins: [{ path: './bff.mjs' }, { package: '@fastify/http-proxy', options: proxy }],
      routes: [{ name: 'posts', match: { path: '/posts', methods: ['POST'] }, service: 'any', edge: { jwt: false } }]
    }
  )
  const sendHead = async (path: string, headers: Record<string, string> = {}) => {
    const response = await receive(url + path, { method: 'HEAD', headers })
    t.equal(response.text, '')
    return response
  }
  const plain = await sendHead('/plain')
  t.strictSame([plain.status, plain.headers.get('content-length'), plain.headers.get('x-runs')], [200, '5', '1'])
  await eventually(() => lines.some(({ method, route }) => method === 'HEAD' && route === '/plain'))
  t.equal((await sendHead('/limited')).status, 401)
  t.equal((await sendHead('/limited', bearer())).headers.get('ratelimit-remaining'), '0')
  t.equal((await receive(`${url}/limited`, { headers: bearer() })).status, 429, 'GET and HEAD count together')
  t.equal((await sendHead('/own')).headers.get('x-own'), 'yes', 'an earlier route for HEAD is kept')
  const requested = { origin: 'https://a.example', 'access-control-request-method': 'GET' }
  const preflight = await receive(`${url}/cors`, { method: 'OPTIONS', headers: requested })
  t.equal(preflight.headers.get('access-control-allow-methods'), 'GET, HEAD')
  const via = await sendHead('/via/7')
  t.strictSame([via.status, via.headers.get('x-method')], [200, 'HEAD'])
  t.equal((await sendHead('/posts')).status, 405, 'configured routes only have the configured methods')
  const shown = server.pluginRecord.ownRoutes().filter(({ path }) => path === '/plain')
  t.strictSame(
    shown.map(({ methods }) => methods),
    [['GET', 'HEAD']]
  )
})
