// slow: takes about 15 s
/** The edge without the mesh: requests and responses over HTTP/1.1, TLS, HTTP/2 and WebSocket, compared by their bytes. */
import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, RequestListener } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, opcodes, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { ask, get, raw, startEcho, startGateway, startService } from '../helpers/gateway.ts'

/** A gateway without the mesh in front of one service, and a client for it. */
async function before(t: Test, handler: RequestListener, protocol: Protocol = 'HTTP/1.1', more: object = {}) {
  const service = await startService(handler)
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      mesh: false,
      listen: listenFor(t, protocol),
      services: { one: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'one' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  return { ...gateway, client: anyClient(t, protocol, gateway.port), service }
}

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

for (const protocol of protocols) {
  t.test(`${protocol}: large bodies in both directions`, async (t) => {
    const { client } = await before(
      t,
      async (request, response) => {
        const body = await bodyOf(request)
        response.setHeader('x-digest', digest(body))
        response.end(Buffer.from(body).reverse())
      },
      protocol
    )
    const sent = randomBytes(3 * 1024 * 1024)
    const { status, headers, body, isWhole } = await client.ask('/upload', {
      method: 'POST',
      body: sent,
      headers: { 'content-length': String(sent.length), 'content-type': 'application/octet-stream' }
    })
    t.equal(status, 200)
    t.ok(isWhole)
    t.equal(headers['x-digest'], digest(sent))
    t.equal(digest(body), digest(Buffer.from(sent).reverse()))
  })

  t.test(`${protocol}: chunks arrive while the response goes on`, async (t) => {
    const gate = Promise.withResolvers<void>()
    const { client } = await before(
      t,
      (_request, response) => {
        response.write('first\n')
        void gate.promise.then(() => response.end('second\n'))
      },
      protocol
    )
    const call = client.begin('/stream')
    await call.data
    t.equal(call.body().toString(), 'first\n', 'before the service has ended its response')
    gate.resolve()
    t.equal((await call.response).body.toString(), 'first\nsecond\n')
  })

  t.test(`${protocol}: methods, statuses and responses without a body`, async (t) => {
    const { client } = await before(
      t,
      async (request, response) => {
        const { method, url = '' } = request
        const body = await bodyOf(request)
        response.statusCode = Number(url.slice(1, 4))
        response.setHeader('x-method', method!)
        if (method === 'HEAD') response.setHeader('content-length', '5').end()
        else response.end(response.statusCode === 204 || response.statusCode === 304 ? '' : body)
      },
      protocol
    )
    const head = await client.ask('/200', { method: 'HEAD' })
    t.match(head, { status: 200, isWhole: true, headers: { 'x-method': 'HEAD', 'content-length': '5' } })
    t.equal(head.body.length, 0)
    for (const [method, path, status] of [
      ['GET', '/204', 204],
      ['GET', '/304', 304],
      ['DELETE', '/404', 404],
      ['PUT', '/503', 503],
      ['PATCH', '/201', 201]
    ] as const) {
      // biome-ignore format: a table
      const hasBody = method === 'PUT' || method === 'PATCH'
      const response = await client.ask(path, {
        method,
        ...(hasBody && { body: 'a body', headers: { 'content-length': '6' } })
      })
      t.match(response, { status, isWhole: true, headers: { 'x-method': method } }, `${method} ${path}`)
      t.equal(response.body.toString(), hasBody ? 'a body' : '')
    }
  })
}

t.test('the headers of requests', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { port, close } = await startGateway({
    mesh: false,
    services: { one: { instances: [service.url] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'one' },
      { name: 'host', match: { path: '/host' }, service: 'one', edge: { host: 'upstream' } }
    ]
  })
  t.teardown(close)
  const sent = ['Connection: x-own, close', 'X-Own: 1', 'Keep-Alive: timeout=5', 'Proxy-Authorization: a', 'TE: trailers, gzip',
    'X-Request-Id: abc', 'X-Forwarded-For: 9.9.9.9', 'Via: 1.0 fred', 'X-Kept: caf\xe9', 'X-Twice: a', 'X-Twice: b'] // biome-ignore format: a list
  const { headers, rawHeaders } = await ask(port, '/', sent)
  t.equal(headers.host, 'h', 'the Host of the client')
  t.equal(headers['x-kept'], 'caf\xe9')
  t.equal(headers['x-twice'], 'a, b')
  t.equal(headers['x-forwarded-for'], '127.0.0.1')
  t.equal(headers['x-forwarded-proto'], 'http')
  t.equal(headers['x-request-id'], 'abc')
  t.match(headers.via, /^1\.0 fred, 1\.1 jingwei-/)
  for (const name of ['x-own', 'proxy-authorization']) t.equal(headers[name], undefined, name)
  const names = rawHeaders.filter((_, index) => index % 2 === 0).map((name) => name.toLowerCase())
  t.equal(new Set(names).size, names.length - (names.filter((name) => name === 'x-twice').length - 1), 'none twice')
  t.equal((await ask(port, '/host')).headers.host, new URL(service.url).host)
})

t.test('paths and queries', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { port, close } = await startGateway({
    mesh: false,
    services: { one: { instances: [service.url] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'one' },
      { name: 'strip', match: { path: '/api/strip' }, service: 'one', path: { strip: '/api' } },
      { name: 'rewrite', match: { path: '/v1' }, service: 'one', path: { rewrite: { prefix: '/v2' } } },
      { name: 'http-proxy', match: { path: '/hp/:id' }, service: 'one', httpProxy: { rewritePrefix: '/by/:id' } }
    ]
  })
  t.teardown(close)
  for (const [target, url] of [
    ['/a%20b/c?x=%2F&y', '/a%20b/c?x=%2F&y'],
    ['/?q=caf%E9&&z', '/?q=caf%E9&&z'],
    ['/api/strip/a%7Eb?x=1', '/strip/a%7Eb?x=1'],
    ['/v1', '/v2'],
    ['/v1/%C3%A9?a', '/v2/%C3%A9?a'],
    ['/hp/7?x=1', '/by/7?x=1']
  ]) {
    t.equal((await ask(port, target!)).url, url, target!)
  }
  t.equal((await ask(port, '/api/strip/x')).headers['x-forwarded-prefix'], '/api')
})

t.test('headers of responses: fields of the connection are dropped, locations are changed back', async (t) => {
  const { port } = await before(
    t,
    (request, response) => {
      response.writeHead(302, [
        ['Location', request.url === '/inner/a' ? '/inner/b' : `http://${request.headers.host}/x`],
        ['Connection', 'x-own'], ['X-Own', '1'], ['Set-Cookie', 'a=1'], ['Set-Cookie', 'b=2'], ['X-Latin', 'caf\xe9']
      ].flat()) // biome-ignore format: a list
      response.end()
    },
    'HTTP/1.1',
    {
      routes: [
        { name: 'all', match: { path: '/' }, service: 'one' },
        { name: 'outer', match: { path: '/outer' }, service: 'one', path: { rewrite: { prefix: '/inner' } } }
      ]
    }
  )
  const { headers } = await get(port, '/')
  t.match(headers, { location: 'http://h/x', 'set-cookie': 'a=1\nb=2', 'x-latin': 'caf\xe9' })
  t.equal(headers['x-own'], undefined)
  t.equal((await get(port, '/outer/a')).headers.location, '/outer/b')
})

t.test('trailers and informational responses of a service are dropped, and the response is whole', async (t) => {
  const { port } = await before(t, (_request, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' })
    response.writeHead(200, { trailer: 'x-sum' })
    response.write('body')
    response.addTrailers({ 'x-sum': '4' })
    response.end()
  })
  const bytes = await raw(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  t.match(bytes, /HTTP\/1\.1 200 OK\r\n/)
  t.match(bytes, /\r\n4\r\nbody\r\n0\r\n\r\n$/)
})

t.test(
  'a route with `via: bridge` keeps trailers, informational responses, the order of headers and early header sections',
  async (t) => {
    const gate = Promise.withResolvers<void>()
    const { port, client } = await before(
      t,
      async (request, response) => {
        if (request.url === '/late') {
          response.flushHeaders()
          await gate.promise
          response.end('late')
          return
        }
        const body = await bodyOf(request)
        response.writeEarlyHints({ link: '</a.css>; rel=preload' })
        response.writeHead(200, ['Trailer', 'x-sum', 'X-B', '1', 'X-A', String(request.headers.trailer)])
        response.write(body)
        response.addTrailers({ 'x-sum': '4' })
        response.end()
      },
      'HTTP/1.1',
      { routes: [{ name: 'all', match: { path: '/' }, service: 'one', via: 'bridge' }] }
    )
    const request =
      'POST / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nTrailer: x-own\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n'
    const bytes = await raw(port, `${request}4\r\nbody\r\n0\r\nx-own: 1\r\n\r\n`)
    t.match(bytes, /^HTTP\/1\.1 103 Early Hints\r\n/)
    t.match(bytes, /\r\nx-b: 1\r\nx-a: undefined\r\n/i, 'a request has no trailers, and announces none')
    t.match(bytes, /\r\n4\r\nbody\r\n0\r\nx-sum: 4\r\n\r\n$/i)
    const call = client.begin('/late')
    t.equal((await call.begun).status, 200, 'before the body begins')
    gate.resolve()
    t.equal((await call.response).body.toString(), 'late')
    const service = await startWebSocketService({ onPeer: echo })
    t.teardown(service.close)
    const other = await startGateway({
      mesh: false,
      services: { one: { instances: [service.url] } },
      routes: [{ name: 'ws', match: { path: '/ws' }, service: 'one', via: 'bridge' }]
    })
    t.teardown(other.close)
    const { peer } = await open(other.port)
    peer.send(opcodes.text, 'hello')
    t.equal((await peer.frame(0)).payload.toString(), 'hello')
    peer.socket.destroy()
  }
)

t.test('a body that is longer than its limit', async (t) => {
  const { client } = await before(t, (_request, response) => response.end(), 'HTTP/1.1', { edge: { bodyLimit: '1kb' } })
  const { status } = await client.ask('/', {
    method: 'POST',
    body: 'x'.repeat(2000),
    headers: { 'content-length': '2000' }
  })
  t.equal(status, 413)
})

t.test('concerns of the edge and settings of http-proxy guard the routes', async (t) => {
  const { port } = await before(t, (_request, response) => response.end('ok'), 'HTTP/1.1', {
    routes: [
      { name: 'limited', match: { path: '/limited' }, service: 'one', edge: { rateLimit: { max: 1, window: '1m' } } },
      {
        name: 'jwt',
        match: { path: '/jwt' },
        service: 'one',
        edge: { jwt: { secret: 'a secret that is long enough for it' } }
      },
      { name: 'cors', match: { path: '/cors' }, service: 'one', edge: { cors: { origin: ['http://a'] } } }
    ]
  })
  t.equal((await get(port, '/limited')).status, 200)
  t.equal((await get(port, '/limited')).status, 429)
  t.equal((await get(port, '/jwt')).status, 401)
  const preflight = ['Origin: http://a', 'Access-Control-Request-Method: PUT']
  t.match(await get(port, '/cors', preflight, 'OPTIONS'), { headers: { 'access-control-allow-origin': 'http://a' } })
  t.match(await get(port, '/cors', ['Origin: http://a']), {
    status: 200,
    headers: { 'access-control-allow-origin': 'http://a' }
  })
})

t.test('WebSockets', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { port, log, close } = await startGateway(
    {
      mesh: false,
      services: { one: { instances: [service.url] } },
      routes: [
        { name: 'ws', match: { path: '/ws' }, service: 'one', path: { strip: '/ws' } },
        { name: 'off', match: { path: '/off' }, service: 'one', edge: { websocket: false } }
      ]
    },
    { log: true }
  )
  t.teardown(close)
  const { headerSection, peer } = await open(port, '/ws/chat?x=1')
  t.match(headerSection, /^HTTP\/1\.1 101 /)
  t.equal(service.requests[0]!.url, '/chat?x=1')
  t.match(service.requests[0]!.headers, { 'x-forwarded-for': '127.0.0.1', 'sec-websocket-version': '13' })
  const message = randomBytes(100_000)
  peer.send(opcodes.binary, message)
  const frame = await peer.frame(0)
  t.equal(digest(frame.payload), digest(message))
  peer.send(opcodes.close, Buffer.from([3, 232]))
  t.equal((await peer.frame(1)).opcode, opcodes.close)
  peer.socket.end()
  await peer.closed()
  t.equal((await get(port, '/ws/plain')).body, 'http', 'requests of the same route are no WebSockets')
  await t.rejects(open(port, '/off'), { message: /^HTTP\/1\.1 403 / })
  await eventually(() => log.some((each) => each.path === '/ws/chat'))
  t.match(
    log.find((each) => each.path === '/ws/chat'),
    { status: 101, service: 'one', instance: service.url, attempts: 1 }
  )
})

t.test('a service that refuses a WebSocket, or switches to another protocol', async (t) => {
  const service = await startWebSocketService({
    onUpgrade: ({ url }, socket) => {
      if (url === '/refused') socket.end('HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno')
      else socket.end('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n')
    }
  })
  t.teardown(service.close)
  const { port, close } = await startGateway({
    mesh: false,
    services: { one: { instances: [service.url] } },
    routes: [{ name: 'ws', match: { path: '/' }, service: 'one' }]
  })
  t.teardown(close)
  await t.rejects(open(port, '/refused'), { message: /^HTTP\/1\.1 426 / })
  await t.rejects(open(port, '/other'), { message: /^HTTP\/1\.1 502 / })
})
