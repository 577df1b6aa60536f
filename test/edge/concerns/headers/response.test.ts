// Rules for the headers that clients get, on both response paths.
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import http2 from 'node:http2'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { secret } from '../../../helpers/edge/tokens.ts'
import { connect, gatewayBefore, get, parse, raw, startRawService, startService } from '../../../helpers/gateway.ts'
import { selfSigned } from '../../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)
const body = 'a body with é'
const service = await startService((request, response) => {
  if (request.url === '/304') response.writeHead(304, { etag: '"1"', server: 'x' }).end()
  else {
    response.writeHead(request.url === '/500' ? 500 : 200, [
      'Content-Type', 'text/plain', 'Server', 'x', 'X-Powered-By', 'y', 'X-Old', '1', 'Set-Cookie', 'a=1', 'Set-Cookie', 'b=2',
      'X-Kept', 'service', 'Vary', 'Accept'
    ]) // biome-ignore format: pairs
    response.end(request.method === 'HEAD' ? '' : body)
  }
})
t.teardown(service.close)

const rules = {
  remove: ['Server', 'x-powered-by'],
  rename: { 'x-old': 'x-new' },
  set: {
    'x-status': 'was {response.status}',
    'cache-control': 'no-store',
    'x-path': '{request.path}',
    'x-q': '{query.q}'
  },
  add: { 'x-kept': 'gateway', 'x-added': '{response.headers.x-old}' },
  append: { 'set-cookie': 'c=3', vary: 'Origin', 'x-kept': 'more' }
}

/** Checks the response to `/`, with values of several fields joined by line feeds. */
function check(t: Test, headers: Record<string, string | string[] | undefined>) {
  t.match(headers, {
    server: undefined,
    'x-powered-by': undefined,
    'x-old': undefined,
    'x-new': '1',
    'x-status': 'was 200',
    'cache-control': 'no-store',
    'x-path': '/',
    'x-q': undefined,
    'x-kept': 'service\nmore',
    'x-added': '1',
    'set-cookie': 'a=1\nb=2\nc=3'
  })
}

for (const path of ['raw', 'reply']) {
  const edge = { headers: { response: rules }, responsePath: path }
  t.test(`the response of a service, on the ${path} path`, async (t) => {
    const { port } = await gatewayBefore(t, service.url, { edge })
    const { status, headers, body: got } = await get(port, '/')
    t.equal(status, 200)
    check(t, headers)
    t.match(headers.vary, path === 'raw' ? 'Accept\nOrigin' : /Accept[,\n] ?Origin/)
    t.equal(got, Buffer.from(body).toString('latin1'))
  })

  t.test(`HEAD, 304 and errors of the service, on the ${path} path`, async (t) => {
    const { port } = await gatewayBefore(t, service.url, { edge, mesh: { retry: false } })
    const head = await get(port, '/', [], 'HEAD')
    check(t, head.headers)
    t.equal(head.body, '')
    const unchanged = await get(port, '/304')
    t.match(unchanged, { status: 304, headers: { 'x-status': 'was 304', etag: '"1"', server: undefined }, body: '' })
    t.match(await get(port, '/500'), { status: 500, headers: { 'x-status': 'was 500', 'x-new': '1' } })
  })

  t.test(`over HTTP/2, on the ${path} path`, async (t) => {
    const { port } = await gatewayBefore(t, service.url, { edge, listen: { tls: { cert, key }, http2: true } })
    const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
    t.teardown(() => session.destroy())
    const stream = session.request({ ':path': '/' })
    const [headers] = (await once(stream, 'response')) as [IncomingHttpHeaders]
    t.match(headers, { 'x-new': '1', 'x-status': 'was 200', server: undefined, 'set-cookie': ['a=1', 'b=2', 'c=3'] })
    t.equal(headers['x-kept'], 'service, more')
    t.equal(await text(stream), body)
  })
}

t.test('the path of the response stays raw', async (t) => {
  const { server } = await gatewayBefore(t, service.url, { edge: { headers: { response: rules } } })
  t.equal(server.responsePath('all'), 'raw')
})

t.test('errors and other responses of the gateway get the headers, too', async (t) => {
  const set = { 'x-status': '{response.status}', 'x-user': '{consumer.id|nobody}' }
  const response = { set, remove: ['www-authenticate'], append: { 'x-list': 'a' }, only: ['x-none'] }
  const { port } = await gatewayBefore(t, 'http://127.0.0.1:1', {
    edge: { headers: { response }, cors: { origin: 'https://a.example' } },
    services: { any: { instances: ['http://127.0.0.1:1'] } },
    routes: [
      { name: 'open', match: { path: '/' }, service: 'any' },
      { name: 'guarded', match: { path: '/me' }, service: 'any', edge: { jwt: { secret } } },
      {
        name: 'hidden',
        match: { path: '/hidden' },
        service: 'any',
        edge: { ipFilter: { deny: ['127.0.0.1'], status: 404 } }
      }
    ]
  })
  const refused = await get(port, '/')
  t.match(refused, { status: 502, headers: { 'x-status': '502', 'x-user': 'nobody', 'x-list': 'a' } })
  t.match(refused.headers['proxy-status'], /jingwei/, '`only` is about the headers of the service')
  const unknown = await get(port, '/me')
  t.match(unknown, { status: 401, headers: { 'x-status': '401', 'www-authenticate': undefined } })
  const preflight = ['Origin: https://a.example', 'Access-Control-Request-Method: GET']
  const allowed = await get(port, '/', preflight, 'OPTIONS')
  t.match(allowed, { status: 204, headers: { 'x-status': '204', 'access-control-allow-origin': 'https://a.example' } })
  t.notOk(
    'x-status' in (await get(port, '/hidden')).headers,
    'a hidden route has the response of a path without a route'
  )
})

t.test('a header of the request keeps its bytes, also beside a text', async (t) => {
  const routes = [
    { name: 'all', match: { path: '/' }, service: 'any' },
    { name: 'refused', match: { path: '/refused' }, service: 'any', edge: { userAgent: { deny: ['*bot*'] } } },
    { name: 'paused', match: { path: '/paused' }, service: 'any', edge: { maintenance: { enabled: true } } },
    { name: 'fixed', match: { path: '/fixed' }, response: { body: 'fixed é' } }
  ]
  const headers = { response: { set: { 'x-copy': '{headers.x-name}' } } }
  const { port } = await gatewayBefore(t, service.url, { routes, edge: { headers } })
  for (const [path, status] of [
    ['/', 200],
    ['/refused', 403],
    ['/paused', 503],
    ['/fixed', 200]
  ] as const) {
    // Each character stands for one byte: these are the bytes of "é" in UTF-8.
    const request = `GET ${path} HTTP/1.1\r\nhost: a\r\nuser-agent: bot\r\nx-name: caf\xc3\xa9\r\nconnection: close\r\n\r\n`
    const got = await raw(port, Buffer.from(request, 'latin1'))
    t.match(got, new RegExp(`^HTTP/1.1 ${status} `), path)
    t.match(got, /\r\nx-copy: caf\xc3\xa9\r\n/, path)
    const [, length] = /content-length: (\d+)/.exec(got) ?? []
    if (length !== undefined) t.equal(got.split('\r\n\r\n')[1]!.length, Number(length), path)
  }
})

t.test('an error that replaces a response gets the headers once', async (t) => {
  const { port } = await gatewayBefore(
    t,
    service.url,
    { edge: { headers: { response: rules } } },
    {
      before: (server) => {
        server.addHook('onSend', async (_request, reply) => {
          if (reply.statusCode === 200) throw new Error('the hook fails')
        })
      }
    }
  )
  const { status, headers } = await get(port, '/')
  t.equal(status, 500)
  t.match(headers, { 'x-status': 'was 500', 'x-kept': 'gateway\nmore', 'set-cookie': 'c=3', 'x-new': undefined })
})

t.test('only keeps the listed headers of the service, and those of the body', async (t) => {
  const { port } = await gatewayBefore(t, service.url, { edge: { headers: { response: { only: ['X-Old'] } } } })
  const { headers } = await get(port, '/')
  t.strictSame(Object.keys(headers).sort(), [
    'connection',
    'content-type',
    'date',
    'transfer-encoding',
    'x-old',
    'x-request-id'
  ])
})

t.test('informational responses and trailers are passed on', async (t) => {
  const raw = await startRawService((socket) => {
    socket.once('data', () =>
      socket.end(
        'HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nServer: hint\r\n\r\nHTTP/1.1 200 OK\r\nServer: x\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n'
      )
    )
  })
  t.teardown(raw.close)
  const response = { remove: ['server', 'link'], only: ['x-a'], set: { 'x-sum': 'no' } }
  const { port } = await gatewayBefore(t, raw.url, { edge: { headers: { response } } })
  const { closed } = connect(port, 'GET / HTTP/1.1\r\nHost: h\r\nTE: trailers\r\nConnection: close\r\n\r\n')
  const { text } = await closed
  t.match(text, /^HTTP\/1.1 103 Early Hints\r\nlink: <\/a.css>\r\nserver: hint\r\n\r\n/i)
  const final = parse(text.slice(text.indexOf('HTTP/1.1 200')))
  t.match(final, { headers: { 'x-sum': 'no', server: undefined }, body: 'hi' })
  t.match(text, /\r\n0\r\nx-sum: 7\r\n\r\n$/i)
})

t.test('a value of a service cannot break the response', async (t) => {
  const raw = await startRawService((socket) => {
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\nX-A: caf\xe9\tb\r\nContent-Length: 2\r\n\r\nhi', 'latin1'))
  })
  t.teardown(raw.close)
  const set = { 'x-b': '<{response.headers.x-a}>', 'x-c': '{query.c}' }
  const { port } = await gatewayBefore(t, raw.url, { edge: { headers: { response: { set } } } })
  const { headers, body } = await get(port, '/?c=%0d%0aset-cookie:%20a=b')
  t.match(headers, { 'x-b': '<caf\xe9\tb>', 'x-c': '%0D%0Aset-cookie%3A%20a%3Db', 'set-cookie': undefined })
  t.equal(body, 'hi')
})

t.test('a composed route has the rules for its one response', async (t) => {
  const json = await startService((_request, response) => response.setHeader('server', 'x').end('{"a":1}'))
  t.teardown(json.close)
  const { port } = await gatewayBefore(t, json.url, {
    edge: { headers: { response: { append: { 'x-list': '{response.status}' }, set: { 'x-one': '1' } } } },
    services: { any: { instances: [json.url] } },
    routes: [
      {
        name: 'both',
        match: { path: '/', methods: ['GET'] },
        compose: {
          calls: { a: { service: 'any', path: '/', group: 'a' }, b: { service: 'any', path: '/', group: 'b' } }
        }
      }
    ]
  })
  const { headers, body } = await get(port, '/')
  t.match(headers, { 'x-list': '200', 'x-one': '1' })
  t.strictSame(JSON.parse(body), { a: { a: 1 }, b: { a: 1 } })
})

t.test('the rules apply to a route via http-proxy', async (t) => {
  const { port } = await gatewayBefore(t, service.url, {
    edge: { headers: { response: rules } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', via: 'http-proxy' }],
    services: { any: { instances: [service.url] } }
  })
  const { headers } = await get(port, '/')
  t.match(headers, { server: undefined, 'x-new': '1', 'x-status': 'was 200', 'set-cookie': 'a=1\nb=2\nc=3' })
})
