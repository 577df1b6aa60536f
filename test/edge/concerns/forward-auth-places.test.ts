// slow: takes about 5 s
// Forward auth on every kind of route, and beside other concerns and hooks.
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { loadConfig } from '../../../plugins/config.ts'
import { testGateway } from '../../../plugins/testing/index.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, get, parse, raw, startEcho, startService, startWith } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

/** A server that lets requests with the cookie in, and counts its calls. */
async function authServer(t: Test, more?: RequestListener) {
  const state = { calls: 0, bodies: [] as string[] }
  const server = await startService((request, response) => {
    state.calls++
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      state.bodies.push(Buffer.concat(chunks).toString())
      if (more !== undefined) return more(request, response)
      const isKnown = request.headers.cookie === 'session=amy'
      response.writeHead(isKnown ? 200 : 401, { 'x-user': 'amy', 'www-authenticate': 'Cookie' }).end()
    })
  })
  t.teardown(server.close)
  return { url: server.url, state }
}

async function start(t: Test, config: object, files: Record<string, string> = {}) {
  const written = JSON.stringify({ admin: false, ...config })
  const root = await folder(t, { ...files, 'gateway.yaml': written })
  const gateway = await startWith(await loadConfig(join(root, 'gateway.yaml'), {}), { log: true })
  t.teardown(gateway.close)
  return gateway
}

const amy = ['Cookie: session=amy', 'X-User: forged']

t.test('all kinds of routes are guarded, and none lets a client forge the user', async (t) => {
  const { url } = await authServer(t)
  const echo = await startEcho()
  t.teardown(echo.close)
  const forwardAuth = { url, responseHeaders: ['x-user'], consumer: 'x-user' }
  const compose = {
    calls: { one: { service: 'any', path: '/one', as: 'json', at: '/one', headers: { 'x-asks': '{consumer.id}' } } }
  }
  const { port } = await start(
    t,
    {
      services: { any: { instances: [echo.url] } },
      edge: { forwardAuth },
      routes: [
        { name: 'bridge', match: { path: '/bridge' }, service: 'any' },
        { name: 'reply', match: { path: '/reply' }, service: 'any', edge: { responsePath: 'reply' } },
        { name: 'proxy', match: { path: '/proxy' }, service: 'any', via: 'http-proxy' },
        { name: 'composed', match: { path: '/composed', methods: ['GET'] }, compose },
        { name: 'open', match: { path: '/open' }, service: 'any', edge: { forwardAuth: false } }
      ],
      plugins: [{ path: './own.mjs', guarded: true }]
    },
    {
      'own.mjs': `export default async function own(fastify) {
        fastify.get('/own', async ({ consumer }) => ({ id: consumer.id }))
        fastify.get('/called', async (request) => request.mesh.json('any', '/x'))
      }`
    }
  )
  for (const path of ['/bridge', '/reply', '/proxy', '/composed', '/own', '/called']) {
    t.equal((await get(port, path, ['X-User: forged'])).status, 401, path)
    const { status, body } = await get(port, path, amy)
    t.equal(status, 200, path)
    t.match(body, /amy/, path)
    t.notMatch(body, /forged/, path)
  }
  const open = await get(port, '/open', ['X-User: forged', 'x_user: forged'])
  t.equal(open.status, 200)
  t.notMatch(open.body, /forged/)
})

t.test('a request body that was read first is the one that other concerns and hooks get', async (t) => {
  const { url, state } = await authServer(t, (_request, response) => void response.end())
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await start(
    t,
    {
      services: { any: { instances: [echo.url] } },
      edge: { forwardAuth: { url, forwardBody: true } },
      routes: [
        { name: 'graph', match: { path: '/graph' }, service: 'any', edge: { graphql: { maxDepth: 1 } } },
        { name: 'limited', match: { path: '/limited' }, service: 'any', edge: { bodyLimit: '4b' } },
        { name: 'proxy', match: { path: '/proxy' }, service: 'any', via: 'http-proxy' }
      ],
      plugins: [{ path: './own.mjs', guarded: true }]
    },
    { 'own.mjs': `export default async (fastify) => { fastify.post('/own', async ({ body }) => ({ got: body })) }` }
  )
  const send = async (path: string, body: string, more = '') => {
    const framing = more === '' ? `Content-Length: ${body.length}\r\n` : more
    const content = more === '' ? body : `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
    const type = 'Content-Type: application/json\r\nConnection: close\r\n'
    return parse(await raw(port, `POST ${path} HTTP/1.1\r\nHost: h\r\n${type}${framing}\r\n${content}`))
  }
  const chunked = 'Transfer-Encoding: chunked\r\n'
  const query = '{"query":"{ a }"}'
  for (const more of ['', chunked]) {
    t.match(JSON.parse((await send('/graph', query, more)).body), { body: query })
    t.equal((await send('/graph', '{"query":"{ a { b } }"}', more)).status, 400)
    t.equal((await send('/limited', '12345', more)).status, 413)
    t.match(JSON.parse((await send('/limited', '1234', more)).body), { body: '1234' })
    t.match(JSON.parse((await send('/proxy', query, more)).body), { body: query })
    t.match(JSON.parse((await send('/own', '{"a":[1]}', more)).body), { got: { a: [1] } })
  }
  t.equal(state.bodies[0], query)
  t.equal(state.bodies.at(-1), '{"a":[1]}')
})

t.test('100 Continue is sent when the body is read, and not to a refused client', async (t) => {
  const { url, state } = await authServer(t)
  const echo = await startEcho()
  t.teardown(echo.close)
  const services = { any: { instances: [echo.url] } }
  const routes = [
    { name: 'all', match: { path: '/' }, service: 'any', edge: { forwardAuth: { url } } },
    {
      name: 'body',
      match: { path: '/body' },
      service: 'any',
      edge: { forwardAuth: { url, forwardBody: true, maxBodySize: '10b' } }
    }
  ]
  const { port } = await start(t, { services, routes })
  const head = (path: string, cookie: string, length: number) =>
    `POST ${path} HTTP/1.1\r\nHost: h\r\nCookie: ${cookie}\r\nContent-Length: ${length}\r\nExpect: 100-continue\r\n\r\n`
  const refused = await raw(port, head('/', 'session=eve', 4))
  t.match(refused, /^HTTP\/1\.1 401 /)
  t.match(await raw(port, head('/body', 'session=amy', 11)), /^HTTP\/1\.1 413 /)
  t.equal(state.calls, 1)
  for (const path of ['/', '/body']) {
    const client = connect(port, head(path, 'session=amy', 4))
    await client.until('100 Continue')
    client.send('body')
    await client.until('HTTP/1.1 200', '"body":"body"')
    client.socket.destroy()
  }
  t.equal(state.bodies.at(-1), 'body')
})

t.test('each of several requests on a connection is decided', async (t) => {
  const { url, state } = await authServer(t)
  const echo = await startEcho()
  t.teardown(echo.close)
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any', edge: { forwardAuth: { url } } }]
  const { port } = await start(t, { services: { any: { instances: [echo.url] } }, routes })
  const request = (cookie: string, more = '') => `GET / HTTP/1.1\r\nHost: h\r\nCookie: session=${cookie}\r\n${more}\r\n`
  const text = await raw(port, request('amy') + request('eve') + request('amy', 'Connection: close\r\n'))
  t.strictSame(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 401', 'HTTP/1.1 200'])
  t.equal(state.calls, 3)
})

t.test('a limit by consumer counts the consumer that the server names', async (t) => {
  const { url } = await authServer(t, ({ headers }, response) => {
    response.writeHead(200, { 'x-user': headers.cookie }).end()
  })
  const echo = await startEcho()
  t.teardown(echo.close)
  const edge = { forwardAuth: { url, consumer: 'x-user' }, rateLimit: { max: 1, window: '1h', by: 'consumer' } }
  const { port } = await start(t, {
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge }]
  })
  const statuses = []
  for (const user of ['amy', 'amy', 'bob']) statuses.push((await get(port, '/', [`Cookie: ${user}`])).status)
  t.strictSame(statuses, [200, 429, 200])
})

t.test('headers of earlier concerns reach the server, and clients cannot forge them', async (t) => {
  const seen: unknown[] = []
  const { url } = await authServer(t, ({ headers }, response) => {
    seen.push([headers['x-user-id'], headers.x_user_id])
    response.end()
  })
  const echo = await startEcho()
  t.teardown(echo.close)
  const jwt = { secret, forward: { sub: 'x-user-id' } }
  const { port } = await start(t, {
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { jwt, forwardAuth: { url } } }]
  })
  const headers = [`Authorization: Bearer ${token(claims({ sub: 'amy' }))}`, 'X-User-Id: forged', 'x_user_id: forged']
  t.equal((await get(port, '/', headers)).status, 200)
  t.equal((await get(port, '/', ['X-User-Id: forged'])).status, 401)
  t.strictSame(seen, [['amy', undefined]])
})

t.test('closing the gateway does not wait for a server that is silent', async (t) => {
  let calls = 0
  const silent = await startService(() => void calls++)
  t.teardown(silent.close)
  for (const at of [{ url: silent.url }, { service: 'auth' }]) {
    const gateway = await start(t, {
      listen: { drain: { timeout: '100ms' } },
      services: { any: { instances: [silent.url] }, auth: { instances: [silent.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { forwardAuth: { ...at, timeout: '60s' } } }]
    })
    const client = connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
    await eventually(() => calls > 0)
    calls = 0
    const closed = gateway.close()
    client.socket.destroy()
    await closed
    t.pass('closed')
  }
})

t.test('in a gateway under test, a server at a URL is not called, and a service is scripted', async (t) => {
  const { url, state } = await authServer(t)
  const client = { clientId: 'a', clientSecret: 'b' }
  const services = { app: { json: 1 }, auth: { status: 403, body: 'no' } }
  const routes = [
    {
      name: 'url',
      match: { path: '/url' },
      service: 'app',
      edge: { forwardAuth: { url }, introspection: { ...client, url } }
    },
    { name: 'service', match: { path: '/service' }, service: 'app', edge: { forwardAuth: { service: 'auth' } } }
  ]
  await using gateway = await testGateway({ config: { services: { app: {}, auth: {} }, routes }, services })
  t.equal((await gateway.inject('/url')).statusCode, 200)
  t.match(await gateway.inject('/service'), { statusCode: 403, body: 'no' })
  t.equal(state.calls, 0)
})

t.test('T15 of the real configurations: a login page before development containers', async (t) => {
  const login = await authServer(t, ({ headers }, response) => {
    const { 'x-forwarded-proto': proto, 'x-forwarded-host': host, 'x-forwarded-uri': uri } = headers
    if (headers.cookie?.includes('_oauth2_proxy=amy')) {
      response.writeHead(202, { 'x-auth-request-user': 'amy', 'x-auth-request-email': 'amy@example.com' }).end()
      return
    }
    const back = encodeURIComponent(`${proto}://${host}${uri}`)
    response
      .writeHead(302, { location: `https://login.example.com/start?rd=${back}`, 'set-cookie': '_csrf=1' })
      .end('Found')
  })
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await start(t, {
    services: { app: { instances: [echo.url] }, login: { instances: [login.url] } },
    edge: { forwardAuth: { service: 'login', responseHeaders: ['X-Auth-Request-User', 'X-Auth-Request-Email'] } },
    routes: [{ name: 'app', match: { path: '/', hosts: ['dev.example.com'] }, service: 'app' }]
  })
  const stranger = await get(port, '/a?b', ['Host: dev.example.com'])
  t.match(stranger, {
    status: 302,
    headers: {
      location: `https://login.example.com/start?rd=${encodeURIComponent('http://dev.example.com/a?b')}`,
      'set-cookie': '_csrf=1'
    },
    body: 'Found'
  })
  const user = await get(port, '/a?b', ['Host: dev.example.com', 'Cookie: a=b; _oauth2_proxy=amy'])
  t.match(JSON.parse(user.body), {
    url: '/a?b',
    headers: { 'x-auth-request-user': 'amy', 'x-auth-request-email': 'amy@example.com' }
  })
})
