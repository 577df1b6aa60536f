import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import type { GatewayOptions, Seen } from '../../helpers/gateway.ts'
import { ask, get, raw, responding, startEcho, startGateway, startRawService } from '../../helpers/gateway.ts'

async function before(t: Test, url: string, config: object = {}, route: object = {}, options: GatewayOptions = {}) {
  const services = { any: { instances: [url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any', ...route }]
  const gateway = await startGateway({ services, routes, ...config }, options)
  t.teardown(gateway.close)
  return gateway
}

async function echoing(t: Test, config: object = {}, route: object = {}, options: GatewayOptions = {}) {
  const echo = await startEcho()
  t.teardown(echo.close)
  return before(t, echo.url, config, route, options)
}

/** A gateway in front of a service that responds with these bytes. */
async function saying(t: Test, response: string, options: GatewayOptions = {}) {
  const service = await startRawService(responding(response))
  t.teardown(service.close)
  return before(t, service.url, { mesh: { retry: false } }, {}, options)
}

t.test('the service gets end-to-end headers unchanged, and no hop-by-hop headers', async (t) => {
  const { port } = await echoing(t)
  const seen = await ask(port, '/', [
    'Accept: a',
    'ACCEPT: b',
    'X-Latin: caf\xe9',
    'Cookie: a=1',
    'Cookie: b=2',
    'Keep-Alive: timeout=5',
    'Proxy-Connection: keep-alive',
    'Proxy-Authorization: Basic eDp5',
    'TE: gzip, trailers;q=0.5',
    'Upgrade: websocket',
    'HTTP2-Settings: AAMAAABkAAQAAP__',
    'Connection: X-Hop, upgrade',
    'X-Hop: secret',
    'constructor: c',
    'Authorization: Bearer x'
  ])
  t.equal(seen.headers.accept, 'a, b')
  t.equal(seen.headers['x-latin'], 'caf\xe9')
  t.equal(seen.headers.cookie, 'a=1; b=2')
  t.equal(seen.headers.authorization, 'Bearer x')
  t.equal(seen.headers.host, 'h')
  t.ok(Object.hasOwn(seen.headers, 'constructor'))
  for (const name of 'keep-alive proxy-connection proxy-authorization te upgrade http2-settings x-hop'.split(' ')) {
    t.notOk(name in seen.headers, name)
  }
  t.equal((await ask(port, '/', ['TE: trailers, deflate'])).headers.te, 'trailers')
  t.match(seen.headers.via, /^1\.1 jingwei-[0-9a-f]{8}$/)
  t.match((await ask(port, '/', ['Via: 1.0 fred'])).headers.via, /^1\.0 fred, 1\.1 jingwei-[0-9a-f]{8}$/)
})

t.test('a looping request is refused with 508', async (t) => {
  const gateway = await startGateway({
    services: { self: { instances: ['http://127.0.0.1:1'] }, echo: { instances: ['http://127.0.0.1:1'] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'self' }]
  })
  t.teardown(gateway.close)
  const looping = await before(t, gateway.url)
  // Points the first at the second, once both have their ports.
  const back = await startRawService((socket) => {
    const onward = responding('')
    onward(socket)
    socket.once('data', async (chunk: Buffer) => {
      socket.end(await raw(again.port, chunk.toString('latin1').replace('\r\n', '\r\nconnection: close\r\n')), 'latin1')
    })
  })
  t.teardown(back.close)
  const again = await before(t, back.url)
  const { status, headers, body } = await get(again.port, '/')
  t.equal(status, 508)
  t.notOk(
    'proxy-status' in headers,
    'the second gateway is a service for the first, so its reserved headers are removed'
  )
  t.match(body, /JW_LOOP_DETECTED/)
  t.not((await get(looping.port, '/')).status, 508, 'another gateway on the way is no loop')
})

t.test('forwarding headers of untrusted peers are replaced, in every spelling', async (t) => {
  const { port } = await echoing(t, { edge: { requestId: { trustClient: false } } })
  const { headers } = await ask(port, '/', [
    'Host: Shop.example.com:81',
    'X-Forwarded-For: 6.6.6.6',
    'x-forwarded-proto: https',
    'X-Forwarded-Host: evil',
    'X-Forwarded-Port: 1',
    'X-Forwarded-Prefix: /evil',
    'X-Real-IP: 6.6.6.6',
    'X-Original-URL: /admin',
    'X-Rewrite-URL: /admin',
    'Forwarded: for=6.6.6.6',
    'X_Forwarded_For: 6.6.6.6',
    'X-Forwarded_For: 6.6.6.6',
    'X_Request_Id: evil',
    'Content_Length: 7',
    'X_Other: kept'
  ])
  const said = Object.entries(headers).filter(([name]) => /forwarded|real|url|_/.test(name))
  t.strictSame(Object.fromEntries(said), {
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-proto': 'http',
    'x-forwarded-host': 'Shop.example.com:81',
    'x-forwarded-port': String(port),
    x_other: 'kept'
  })
})

const sent = [
  'X-Forwarded-For: 6.6.6.6',
  'X-Forwarded-For: 7.7.7.7',
  'x-forwarded-proto: https',
  'X-Forwarded-Host: shop.example.com',
  'X-Forwarded-Prefix: /shop',
  'X-Forwarded-Server: evil',
  'X-Forwarded-Scheme: gopher',
  'X-Forwarded-Ssl: on',
  'X-Real-IP: 6.6.6.6',
  'X-Original-URL: /admin',
  'X-Rewrite-URL: /admin',
  'X-Jingwei-Fault-Delay: 1',
  'Forwarded: for=6.6.6.6;proto=https'
]
const forwardingHeaders = ({ headers }: Seen) =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => /forwarded|real|url|jingwei/.test(name)))

t.test('For, Proto, Host and Port of a trusted peer are used', async (t) => {
  const { port } = await echoing(t, { listen: { trustProxy: ['127.0.0.0/8', '::1'] } })
  t.strictSame(
    forwardingHeaders(await ask(port, '/', sent)),
    {
      'x-forwarded-for': '6.6.6.6, 7.7.7.7, 127.0.0.1',
      'x-forwarded-proto': 'https',
      'x-forwarded-host': 'shop.example.com'
    },
    'X-Forwarded-Port is not set, since the port of the gateway is not that of https'
  )
  t.match(forwardingHeaders(await ask(port, '/', ['X-Forwarded-Port: 444', 'Host: h'])), { 'x-forwarded-port': '444' })
  t.strictSame(forwardingHeaders(await ask(port, '/', ['Host: h'])), {
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-proto': 'http',
    'x-forwarded-host': 'h',
    'x-forwarded-port': String(port)
  })
})

t.test('only the configured headers of a trusted peer are used', async (t) => {
  const trustProxy = ['127.0.0.1']
  const names = [...new Set(sent.map((line) => line.split(':')[0]!.toLowerCase()))]
  for (const name of names) {
    const { port } = await echoing(t, { listen: { trustProxy, trustHeaders: [name] } })
    const headers = forwardingHeaders(await ask(port, '/', ['Host: h', ...sent]))
    t.strictSame(
      { [name]: 'believed', ...headers },
      {
        [name]: headers[name],
        'x-forwarded-for': name === 'x-forwarded-for' ? '6.6.6.6, 7.7.7.7, 127.0.0.1' : '127.0.0.1',
        'x-forwarded-proto': name === 'x-forwarded-proto' ? 'https' : 'http',
        'x-forwarded-host': name === 'x-forwarded-host' ? 'shop.example.com' : 'h',
        ...(name !== 'x-forwarded-proto' && { 'x-forwarded-port': String(port) })
      },
      name
    )
    t.match(headers[name], sent.find((line) => line.toLowerCase().startsWith(name))!.split(': ')[1]!, name)
  }
})

t.test('Fastify’s properties of the client follow the same list', async (t) => {
  const seen: string[] = []
  const watch = (server: FastifyInstance) =>
    void server.addHook('preHandler', async ({ ip, host, protocol }) => {
      seen.push(`${ip} ${host} ${protocol}`)
    })
  for (const trustHeaders of [undefined, ['x-forwarded-for'], ['x-forwarded-host'], []]) {
    const listen = { trustProxy: ['127.0.0.1'], ...(trustHeaders && { trustHeaders }) }
    const { port } = await echoing(t, { listen }, {}, { before: watch })
    await ask(port, '/', ['Host: h', ...sent])
  }
  t.strictSame(seen, ['7.7.7.7 shop.example.com https', '7.7.7.7 h http', '127.0.0.1 h http', '127.0.0.1 h http'])
})

t.test('fault headers of a trusted peer are used if a fault enables them', async (t) => {
  const listen = { trustProxy: ['127.0.0.1'] }
  const { port } = await echoing(t, { listen, mesh: { fault: { header: true } } })
  t.match(forwardingHeaders(await ask(port, '/', sent)), { 'x-jingwei-fault-delay': '1', 'x-original-url': undefined })
})

t.test('the client gets all end-to-end headers of the service, in order, byte for byte', async (t) => {
  const { port } = await saying(
    t,
    'HTTP/1.1 299 All Fine\r\nX-One: 1\r\nset-cookie: a=1\r\nX-Many: a\r\nSet-Cookie: b=2\r\nX-Many: b\r\n' +
      'set-cookie: c=3\r\nX-Latin: caf\xe9\r\nKeep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nX-Hop: 1\r\n' +
      'X-Hop-Too: 1\r\nConnection: x-hop\r\nConnection: X-Hop-Too\r\nconstructor: c\r\nContent-Length: 2\r\n\r\nok'
  )
  const text = await raw(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  t.equal(text.split('\r\n')[0], 'HTTP/1.1 299 All Fine')
  const { headers, body } = await get(port, '/')
  t.equal(body, 'ok')
  t.equal(headers['set-cookie'], 'a=1\nb=2\nc=3')
  t.equal(headers['x-many'], 'a\nb')
  t.equal(headers['x-latin'], 'caf\xe9')
  t.ok(Object.hasOwn(headers, 'constructor'))
  t.equal(headers.connection, 'close')
  for (const name of ['keep-alive', 'proxy-authenticate', 'x-hop', 'x-hop-too']) t.notOk(name in headers, name)
})

t.test('headers that the edge sets on the reply have precedence; Vary and Set-Cookie are merged', async (t) => {
  const { port } = await saying(
    t,
    'HTTP/1.1 200 OK\r\nX-Stamp: theirs\r\nVary: accept\r\nSet-Cookie: a=1\r\nX-Request-Id: theirs\r\n' +
      'Content-Length: 0\r\n\r\n',
    {
      before: (server) =>
        void server.addHook('onRequest', async (_request, reply) => {
          reply.header('x-stamp', 'ours').header('vary', 'origin').header('set-cookie', 'b=2')
        })
    }
  )
  const { headers } = await get(port, '/', ['X-Request-Id: mine'])
  t.equal(headers['x-stamp'], 'ours')
  t.equal(headers.vary, 'accept\norigin')
  t.equal(headers['set-cookie'], 'a=1\nb=2')
  t.equal(headers['x-request-id'], 'mine')
})

t.test('a response that cannot be written is a 502', async (t) => {
  for (const [what, bytes] of [
    ['a control character', 'X-Bad: a\x01b\r\n'],
    ['no header name', ': x\r\n'],
    ['both lengths', 'Content-Length: 5\r\nContent-Length: 6\r\n']
  ] as const) {
    const { port } = await saying(t, `HTTP/1.1 200 OK\r\n${bytes}Content-Length: 0\r\n\r\n`)
    const { status, headers, body } = await get(port, '/')
    t.equal(status, 502, what)
    t.match(headers['proxy-status'], /^jingwei; error=http_protocol_error$/, what)
    t.match(JSON.parse(body), { statusCode: 502, error: 'Bad Gateway', requestId: headers['x-request-id'] })
  }
  const odd = await saying(t, 'HTTP/1.1 200 caf\xc3\xa9 \xe2\x82\xac\r\nContent-Length: 2\r\n\r\nok')
  t.match(await get(odd.port, '/'), { status: 200, body: 'ok' }, 'an unusual reason phrase is not an error')
})
