// slow: takes about 8 s
import type { IncomingHttpHeaders, RequestListener } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { echo, handshake, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { ask, connect, get, startEcho, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

interface Asked {
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

/** A server that decides, and the calls that it got. */
async function authServer(t: Test, decide: RequestListener) {
  const asked: Asked[] = []
  const server = await startService((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { method = '', url = '', headers } = request
      asked.push({ method, url, headers, body: Buffer.concat(chunks).toString() })
      decide(request, response)
    })
  })
  t.teardown(server.close)
  return { url: server.url, asked }
}

const allowAll: RequestListener = (_request, response) => void response.end()

interface More {
  readonly protocol?: Protocol
  readonly edge?: object
  readonly service?: string
  readonly services?: object
  readonly routes?: readonly object[]
  readonly listen?: object
  readonly consumers?: readonly object[]
}

/** A gateway with forward auth before an echo service, and an open route to the same service. */
async function guarded(t: Test, forwardAuth: object, { protocol = 'HTTP/1.1', edge, service, ...more }: More = {}) {
  const behind = service ?? (await echoing(t))
  const gateway = await startGateway(
    {
      listen: { ...listenFor(t, protocol), ...more.listen },
      ...(more.consumers && { consumers: more.consumers }),
      services: { any: { instances: [behind] }, ...more.services },
      routes: [
        { name: 'guarded', match: { path: '/' }, service: 'any', edge: { forwardAuth, ...edge } },
        { name: 'open', match: { path: '/open' }, service: 'any' },
        ...(more.routes ?? [])
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const line = async (index = 0) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]
  }
  const { ask: any, begin } = anyClient(t, protocol, gateway.port)
  const seen = async (path: string, headers: Record<string, string> = {}, options: object = {}) => {
    const { status, body } = await any(path, { headers, ...options })
    t.equal(status, 200)
    return JSON.parse(body.toString()) as Seen
  }
  return { ...gateway, line, any, begin, seen, metrics: () => gateway.server.metrics.metrics() }
}

async function echoing(t: Test): Promise<string> {
  const { url, close } = await startEcho()
  t.teardown(close)
  return url
}

for (const protocol of protocols) {
  t.test(`the server learns of the request, and the service of the decision, over ${protocol}`, async (t) => {
    const { url, asked } = await authServer(t, (_request, response) => {
      response.writeHead(204, { 'x-user': 'amy', 'x-groups': ['a', 'b'], 'x-other': 'no', 'x-session': 's' }).end()
    })
    const { seen, any, line, metrics } = await guarded(
      t,
      {
        url: `${url}/auth?x=1`,
        responseHeaders: ['x-user', 'X-Groups'],
        consumer: 'x-user',
        clientHeaders: ['x-session']
      },
      { protocol }
    )
    const got = await seen('/a%20b?c=d&e', {
      authorization: 'Bearer t',
      cookie: 'a=b',
      'x-user': 'forged',
      x_groups: 'forged',
      'x-forwarded-for': '6.6.6.6',
      'x-forwarded-uri': '/forged',
      'x-forwarded-method': 'FORGED',
      x_forwarded_uri: '/forged',
      'x-forwarded-host': 'forged',
      'x-original-url': '/forged',
      'if-none-match': '"a"',
      range: 'bytes=0-1'
    })
    t.match(got.headers, { 'x-user': 'amy', 'x-groups': 'a, b', authorization: 'Bearer t' })
    t.strictSame(
      [got.headers['x-other'], got.headers.x_groups, got.headers['x-session']],
      [undefined, undefined, undefined]
    )
    const [call] = asked
    t.match(call, { method: 'GET', url: '/auth?x=1', body: '' })
    t.match(call?.headers, {
      authorization: 'Bearer t',
      cookie: 'a=b',
      'x-forwarded-method': 'GET',
      'x-forwarded-uri': '/a%20b?c=d&e',
      'x-forwarded-proto': protocol === 'HTTP/1.1' ? 'http' : 'https',
      'x-forwarded-host': /^127\.0\.0\.1:\d+$/,
      'x-forwarded-for': '127.0.0.1',
      'x-request-id': String,
      host: url.slice('http://'.length)
    })
    for (const name of ['x-user', 'x_groups', 'x_forwarded_uri', 'x-original-url', 'if-none-match', 'range']) {
      t.notOk(call?.headers[name], name)
    }
    t.match(await line(), { consumer: 'amy', route: 'guarded', status: 200 })

    const posted = await any('/p', { method: 'POST', body: 'payload', headers: { 'content-type': 'a/b' } })
    t.match(posted, { status: 200, headers: { 'x-session': 's' } })
    t.match(JSON.parse(posted.body.toString()), { method: 'POST', body: 'payload' })
    t.match(asked[1], { method: 'GET', body: '', headers: { 'x-forwarded-method': 'POST' } })
    t.notOk(asked[1]?.headers['content-length'] ?? asked[1]?.headers['content-type'])
    t.equal((await any('/', { method: 'HEAD' })).status, 200)
    t.equal((await any('/', { method: 'OPTIONS' })).status, 200)
    t.strictSame(
      asked.slice(2).map(({ headers }) => headers['x-forwarded-method']),
      ['HEAD', 'OPTIONS']
    )

    const open = await seen('/open', { 'x-user': 'forged', x_user: 'forged', 'X-Groups': 'forged' })
    t.strictSame(
      [open.headers['x-user'], open.headers.x_user, open.headers['x-groups']],
      [undefined, undefined, undefined]
    )
    t.equal(asked.length, 4)
    t.match(await metrics(), 'jingwei_edge_forward_auth_requests_total{route="guarded",result="allowed"} 4')
    t.match(await metrics(), 'jingwei_edge_forward_auth_duration_seconds_count{route="guarded"} 4')
  })

  t.test(`a refusal reaches the client as the server wrote it, over ${protocol}`, async (t) => {
    const { url, asked } = await authServer(t, (request, response) => {
      const way = String(request.headers['x-forwarded-uri'])
      if (way === '/login') {
        response.writeHead(302, { location: '/login?next=1', 'set-cookie': ['a=1', 'b=2'], 'x-secret': 's' }).end()
      } else if (way === '/page') {
        response
          .writeHead(403, { 'content-type': 'text/html', 'content-length': 5, etag: '"e"' })
          .end('<h1>\u00e9', 'latin1')
      } else response.writeHead(401, { 'www-authenticate': 'Basic realm="a"', 'x-user': 'amy' }).end()
    })
    const { any, line, metrics, seen } = await guarded(t, { url, responseHeaders: ['x-user'] }, { protocol })
    const login = await any('/login')
    t.match(login, { status: 302, headers: { location: '/login?next=1', 'set-cookie': ['a=1', 'b=2'] }, isWhole: true })
    t.equal(login.body.length, 0)
    t.notOk(login.headers['x-secret'])
    t.match(await line(), {
      status: 302,
      error: 'JW_AUTH_REFUSED',
      reason: 'forward_auth_refused',
      answeredBy: 'gateway'
    })

    const page = await any('/page')
    t.match(page, { status: 403, headers: { 'content-type': 'text/html', 'content-length': '5' }, isWhole: true })
    t.equal(page.body.toString('latin1'), '<h1>\u00e9')
    t.notOk(page.headers.etag)
    t.match(await any('/page', { method: 'HEAD' }), { status: 403, isWhole: true })

    const plain = await any('/', { method: 'POST', body: 'unread' })
    t.match(plain, { status: 401, headers: { 'www-authenticate': 'Basic realm="a"' }, isWhole: true })
    t.match(JSON.parse(plain.body.toString()), { code: 'JW_AUTH_REFUSED', statusCode: 401 })
    t.equal((await any('/', { method: 'OPTIONS' })).status, 401, 'a preflight is a request like any other')
    t.equal(asked.length, 5)
    t.equal((await seen('/open')).method, 'GET')
    t.match(await metrics(), 'jingwei_edge_forward_auth_requests_total{route="guarded",result="refused"} 5')
  })

  t.test(`the body reaches the server and then the service, over ${protocol}`, async (t) => {
    const { url, asked } = await authServer(t, allowAll)
    const { any, begin, line } = await guarded(t, { url, forwardBody: true, maxBodySize: '10b' }, { protocol })
    const headers = { 'content-type': 'a/b' }
    t.match(JSON.parse((await any('/', { method: 'POST', body: '0123456789', headers })).body.toString()), {
      body: '0123456789',
      headers: { 'content-type': 'a/b' }
    })
    t.match(asked[0], {
      method: 'POST',
      body: '0123456789',
      headers: { 'content-type': 'a/b', 'x-forwarded-method': 'POST' }
    })
    const chunked = begin('/', { method: 'PUT', streams: true })
    chunked.send('0123')
    chunked.send('456')
    chunked.end()
    t.match(JSON.parse((await chunked.response).body.toString()), { method: 'PUT', body: '0123456' })
    t.equal(asked[1]?.body, '0123456')
    t.equal((await any('/')).status, 200)
    t.match(asked[2], { method: 'GET', body: '' })
    t.match(await any('/', { method: 'POST', body: '0123456789a' }), { status: 413 })
    t.match(await line(3), { error: 'JW_BODY_TOO_LARGE' })
    const long = begin('/', { method: 'POST', streams: true })
    long.send('0123456789a')
    long.end()
    t.match(await long.response, { status: 413 })
    t.equal(asked.length, 3)
  })

  t.test(`shadow mode refuses nothing, over ${protocol}`, async (t) => {
    const { url } = await authServer(t, (request, response) => {
      if (request.headers['x-forwarded-uri'] === '/error') response.writeHead(500).end()
      else response.writeHead(302, { location: '/login', 'set-cookie': 'a=b' }).end('page')
    })
    const options = { url, mode: 'shadow', forwardBody: true, maxBodySize: '4b' }
    const { any, begin, log, metrics } = await guarded(t, options, { protocol })
    const passed = await any('/')
    t.match(passed, { status: 200 })
    t.notOk(passed.headers['set-cookie'])
    const recorded = () => log.flatMap(({ shadow }) => (shadow ?? []) as object[])
    await eventually(() => recorded().length === 1)
    t.match(recorded()[0], { concern: 'forward-auth', error: 'JW_AUTH_REFUSED', reason: 'forward_auth_refused' })
    t.equal((await any('/error')).status, 200)
    await eventually(() => recorded().length === 2)
    t.match(recorded()[1], { error: 'JW_AUTH_UNAVAILABLE', reason: 'forward_auth_status' })
    t.match(JSON.parse((await any('/', { method: 'POST', body: '012345' })).body.toString()), { body: '012345' })
    const long = begin('/', { method: 'POST', streams: true })
    for (const chunk of ['01', '2345', '6', '789']) long.send(chunk)
    long.end()
    t.match(JSON.parse((await long.response).body.toString()), { body: '0123456789' })
    t.match(await metrics(), 'jingwei_edge_shadow_refusals_total{concern="forward-auth",route="guarded"} 4')
  })
}

t.test('a WebSocket handshake is decided like a request', async (t) => {
  const { url, asked } = await authServer(t, (request, response) => {
    const isKnown = request.headers.cookie === 'session=amy'
    response.writeHead(isKnown ? 200 : 401, isKnown ? { 'x-user': 'amy' } : { 'www-authenticate': 'Cookie' }).end()
  })
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { port } = await guarded(t, { url, responseHeaders: ['x-user'] }, { service: service.url })
  const refused = connect(port, handshake('/chat'))
  await refused.until('JW_AUTH_REFUSED')
  t.match(refused.received(), /^HTTP\/1\.1 401 .*www-authenticate: Cookie\r\n/is)
  refused.socket.destroy()
  t.match(asked[0]?.headers, { 'x-forwarded-uri': '/chat', 'x-forwarded-method': 'GET' })
  t.notOk(asked[0]?.headers.upgrade)
  t.equal(service.requests.length, 0)
  const { peer } = await open(port, '/chat', ['Cookie: session=amy', 'X-User: forged'])
  peer.send(opcodes.text, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  t.equal(service.requests[0]?.headers['x-user'], 'amy')
  t.equal(asked.length, 2)
  peer.socket.destroy()
})

t.test('the server can be a service of the mesh', async (t) => {
  const { url, asked } = await authServer(t, (request, response) => {
    response.writeHead(request.url === '/verify?a' ? 200 : 404, { 'x-user': 'amy' }).end()
  })
  const auth = { service: 'auth', path: '/verify?a', responseHeaders: ['x-user'] }
  for (const mesh of [{}, { mesh: false as const }]) {
    const echo = await echoing(t)
    const gateway = await startGateway({
      ...mesh,
      services: { any: { instances: [echo] }, auth: { instances: [url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { forwardAuth: auth } }]
    })
    t.teardown(gateway.close)
    t.match((await ask(gateway.port, '/a')).headers, { 'x-user': 'amy' })
    t.match(asked.at(-1)?.headers, { 'x-forwarded-uri': '/a', host: url.slice('http://'.length), via: String })
  }
  const dead = await guarded(t, { service: 'none' }, { services: { none: { instances: ['http://127.0.0.1:1'] } } })
  const refused = await dead.any('/')
  t.match(refused, { status: 503, headers: { 'retry-after': '1' } })
  t.match(JSON.parse(refused.body.toString()), { code: 'JW_AUTH_UNAVAILABLE' })
  t.match(await dead.line(), { reason: 'forward_auth_unreachable' })
})

t.test('only listed request headers reach the server, in any spelling that a service may read', async (t) => {
  const { url, asked } = await authServer(t, allowAll)
  const { port } = await guarded(t, { url, requestHeaders: ['X-Api-Key', 'accept-encoding'] })
  await ask(port, '/', ['X-Api-Key: a', 'x_api_key: b', 'Cookie: c', 'Accept-Encoding: br', 'Connection: x-api-key'])
  t.notOk(asked[0]?.headers['x-api-key'], 'it is named in Connection')
  await ask(port, '/', ['X-Api-Key: a', 'x-api-key: c', 'x_api_key: b', 'Cookie: c', 'Accept-Encoding: br'])
  t.match(asked[1]?.headers, { 'x-api-key': 'a, c', x_api_key: 'b', 'accept-encoding': 'br', 'x-forwarded-uri': '/' })
  t.notOk(asked[1]?.headers.cookie)
})

t.test('a trusted proxy is believed, a client is not', async (t) => {
  const { url, asked } = await authServer(t, allowAll)
  const { port } = await guarded(t, { url }, { listen: { trustProxy: ['127.0.0.1'] } })
  await ask(port, '/', [
    'X-Forwarded-For: 1.2.3.4',
    'X-Forwarded-Proto: https',
    'X-Forwarded-Host: a.example',
    'X-Forwarded-Uri: /admin'
  ])
  t.match(asked[0]?.headers, {
    'x-forwarded-for': '1.2.3.4, 127.0.0.1', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'a.example', 'x-forwarded-uri': '/'
  }) // biome-ignore format: pairs
})

const head = 'HTTP/1.1 200 OK\r\n'
/** Servers that do not decide: [behaviour, bytes of its response, reason]. Without bytes it closes the connection. */
const liars: readonly (readonly [string, string | null, string])[] = [
  ['resets', null, 'unreachable'],
  ['never responds', '', 'timeout'],
  ['sends half a header section', `${head}x-a: b`, 'timeout'],
  ['sends only informational responses', 'HTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n', 'timeout'],
  ['sends no HTTP', 'SSH-2.0-OpenSSH\r\n\r\n', 'malformed'],
  ['sends a control character', `${head}x-user: a\x01b\r\ncontent-length: 0\r\n\r\n`, 'malformed'],
  ['sends NUL', `${head}x-user: a\0b\r\ncontent-length: 0\r\n\r\n`, 'malformed'],
  ['fails', 'HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n', 'status'],
  ['is not modified', 'HTTP/1.1 304 Not\r\n\r\n', 'status'],
  ['sends a status that does not exist', 'HTTP/1.1 700 What\r\ncontent-length: 0\r\n\r\n', 'status'],
  ['sends two consumers', `${head}x-user: amy\r\nx-user: bob\r\ncontent-length: 0\r\n\r\n`, 'malformed'],
  ['sends a consumer that is not UTF-8', `${head}x-user: am\xfc\r\ncontent-length: 0\r\n\r\n`, 'malformed'],
  ['sends a huge header section', `${head}x-user: amy\r\nx-a: ${'a'.repeat(200_000)}\r\n\r\n`, 'malformed'],
  ['switches protocols', 'HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: a\r\n\r\n', 'any']
]

t.test('a server that does not decide lets nobody in, unless the route says so', async (t) => {
  for (const through of ['url', 'service'] as const) {
    for (const [what, bytes, reason] of liars) {
      const server = await startRawService((socket) => {
        socket.once('data', () => (bytes === null ? socket.resetAndDestroy() : socket.write(bytes, 'latin1')))
      })
      t.teardown(server.close)
      const at = through === 'url' ? { url: server.url } : { service: 'auth' }
      const mesh = { retry: false, attemptTimeout: '10s', timeout: '10s' }
      const more = { services: { auth: { instances: [server.url], mesh } } }
      // Short only where it has to expire: a busy machine must not take another failure for a timeout.
      const timeout = reason === 'timeout' ? '300ms' : '10s'
      const auth = { ...at, timeout, consumer: 'x-user', responseHeaders: ['x-user'] }
      const strict = await guarded(t, auth, more)
      const name = `${through}: a server that ${what}`
      const { status, body, headers } = await strict.any('/')
      t.match({ status, headers }, { status: 503, headers: { 'retry-after': '1' } }, name)
      t.match(JSON.parse(body.toString()), { code: 'JW_AUTH_UNAVAILABLE' }, name)
      const line = await strict.line()
      t.match(line, { error: 'JW_AUTH_UNAVAILABLE', reason: reason === 'any' ? /^forward_auth_/ : String }, name)
      if (through === 'url' && reason !== 'any') t.equal(line?.reason, `forward_auth_${reason}`, name)
      await strict.close()
      const lax = await guarded(t, { ...auth, onFailure: 'allow' }, more)
      const seen = await lax.seen('/', { 'x-user': 'forged' })
      t.notOk(seen.headers['x-user'], name)
      t.match(await lax.metrics(), 'result="failed"} 1', name)
      await lax.close()
    }
  }
})

t.test('a refusal stays one, however its body ends', async (t) => {
  const refusal = 'HTTP/1.1 403 No\r\nwww-authenticate: A\r\n'
  const bodies = [
    `${refusal}content-length: 100\r\n\r\nhalf`,
    `${refusal}content-length: 200000\r\n\r\n${'a'.repeat(200_000)}`,
    `${refusal}transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\nbad`,
    `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\n\r\n${refusal}content-length: 2\r\n\r\nno`
  ]
  for (const bytes of bodies) {
    const server = await startRawService((socket) => socket.once('data', () => socket.write(bytes)))
    t.teardown(server.close)
    const { any } = await guarded(t, { url: server.url, timeout: '3s', onFailure: 'allow' })
    const { status, headers } = await any('/')
    // undici takes a 100 that was not asked for as a broken connection: no decision.
    if (bytes.startsWith('HTTP/1.1 100')) t.equal(status, 200)
    else t.match({ status, headers }, { status: 403, headers: { 'www-authenticate': 'A' } }, bytes.slice(0, 80))
  }
})

t.test('an endless body of a positive decision is not waited for', async (t) => {
  const open = new Set<unknown>()
  const server = await startRawService((socket) => {
    open.add(socket)
    socket.once('close', () => open.delete(socket))
    socket.once('data', () => socket.write(`${head}transfer-encoding: chunked\r\n\r\n1\r\na\r\n`))
  })
  t.teardown(server.close)
  const { seen } = await guarded(t, { url: server.url, timeout: '30s' })
  t.equal((await seen('/')).method, 'GET')
  await eventually(() => open.size === 0)
})

t.test('names that the server sends are mapped to declared consumers', async (t) => {
  const { url } = await authServer(t, ({ headers }, response) => {
    response.writeHead(200, { 'x-user': String(headers['x-forwarded-uri']).slice(1) }).end()
  })
  const consumers = [{ name: 'alice', groups: ['gold'], forwardAuth: 'u-1' }]
  const { any, line } = await guarded(t, { url, consumer: 'x-user' }, { consumers })
  for (const [index, [path, consumer]] of [
    ['/u-1', 'alice'],
    ['/alice', 'forward-auth|alice'],
    ['/bob', 'bob']
  ].entries()) {
    await any(path!)
    t.match(await line(index), { consumer })
  }
})

t.test('redirects are not followed', async (t) => {
  const { url, asked } = await authServer(t, (request, response) => {
    if (request.url === '/auth') response.writeHead(307, { location: '/allow' }).end()
    else response.end()
  })
  const { any } = await guarded(t, { url: `${url}/auth` })
  t.match(await any('/'), { status: 307, headers: { location: '/allow' } })
  t.equal(asked.length, 1)
})

t.test('bytes of headers from the server reach the service unchanged', async (t) => {
  const server = await startRawService((socket) => {
    socket.on('data', () =>
      socket.write(`${head}x-name: J\xc3\xbcrgen \xff,;"\r\nx-empty:\r\ncontent-length: 0\r\n\r\n`, 'latin1')
    )
  })
  t.teardown(server.close)
  for (const at of [{ url: server.url }, { service: 'auth' }]) {
    const more = { services: { auth: { instances: [server.url] } } }
    const { port } = await guarded(t, { ...at, responseHeaders: ['x-name', 'x-empty', 'x-none'] }, more)
    const { headers } = await ask(port, '/', ['X-None: forged'])
    t.equal(headers['x-name'], 'J\xc3\xbcrgen \xff,;"')
    t.equal(headers['x-empty'], '')
    t.notOk(headers['x-none'])
  }
})

t.test('a cached decision depends on nothing but the key', async (t) => {
  const { url, asked } = await authServer(t, ({ headers }, response) => {
    const token = headers.authorization
    if (token === undefined) response.writeHead(401).end()
    else response.writeHead(200, { 'x-user': token, 'x-saw': JSON.stringify(headers) }).end()
  })
  const cache = { ttl: '1m', key: ['header:Authorization', 'method'] }
  const auth = { url, responseHeaders: ['x-user', 'x-saw'], cache }
  const { port, metrics } = await guarded(t, auth, {
    routes: [
      { name: 'other', match: { path: '/other' }, service: 'any', edge: { forwardAuth: { ...auth, timeout: '4s' } } }
    ]
  })
  const user = async (path: string, headers: string[], method = 'GET') =>
    (await ask(port, path, headers, method)).headers['x-user']
  t.equal(
    await user('/a?b', ['Authorization: amy', 'X-Evil: a', 'Cookie: c', 'Baggage: b', 'X-Forwarded-Host: e']),
    'amy'
  )
  const saw = Object.keys(asked[0]!.headers).sort()
  t.strictSame(saw, ['authorization', 'connection', 'host', 'via', 'x-forwarded-method', 'x-request-id'])
  t.equal(await user('/b', ['Authorization: amy']), 'amy')
  t.equal(asked.length, 1, 'another path is not in the key')
  t.equal(await user('/b', ['Authorization: bob']), 'bob')
  t.equal(await user('/b', ['Authorization: amy'], 'POST'), 'amy')
  t.equal(asked.length, 3)
  for (const credentials of [
    ['authorization: amy', 'Authorization: bob'],
    ['Authorization: amy', 'x: y\r\nx-forwarded-method: GET']
  ]) {
    await user('/b', credentials)
  }
  t.equal(asked.length, 4, 'two copies are another key')
  for (let i = 0; i < 2; i++) t.equal((await get(port, '/', [])).status, 401)
  t.equal(asked.length, 6, 'refusals are not kept')
  t.equal(await user('/other', ['Authorization: amy']), 'amy')
  t.equal(asked.length, 7, 'routes share no decisions')
  t.match(await metrics(), 'jingwei_edge_forward_auth_requests_total{route="guarded",result="cached"} 2')
})

t.test('a decision is kept no longer than the server allows', async (t) => {
  const responses: Record<string, Record<string, string>> = {
    '/no-store': { 'cache-control': 'private, no-store' },
    '/max-age': { 'cache-control': 'max-age=0' },
    '/cookie': { 'set-cookie': 'a=b' },
    '/kept': { 'cache-control': 'max-age=60' }
  }
  const { url, asked } = await authServer(t, ({ headers }, response) => {
    response.writeHead(200, responses[String(headers['x-forwarded-uri'])]).end()
  })
  const { any } = await guarded(t, { url, clientHeaders: ['set-cookie'], cache: { ttl: '1h', key: ['uri'] } })
  for (const [path, calls] of [
    ['/no-store', 2],
    ['/max-age', 4],
    ['/cookie', 6],
    ['/kept', 7]
  ] as const) {
    for (let i = 0; i < 2; i++) t.equal((await any(path)).status, 200)
    t.equal(asked.length, calls, path)
  }
  const short = await guarded(t, { url, cache: { ttl: '1ms', key: ['uri'] } })
  await short.any('/x')
  await new Promise((resolve) => setTimeout(resolve, 10))
  await short.any('/x')
  t.equal(asked.length, 9)
  const small = await guarded(t, { url, cache: { ttl: '1h', key: ['uri'], maxSize: '300b' } })
  for (const path of ['/1', '/2', '/1']) await small.any(path)
  t.equal(asked.length, 12, 'one decision has room')
})

t.test('decisions in flight are bounded', async (t) => {
  const waiting: (() => void)[] = []
  const { url } = await authServer(t, (_request, response) => void waiting.push(() => response.end()))
  const { any, line } = await guarded(t, { url, maxConcurrent: 2 })
  const first = [any('/'), any('/')]
  await eventually(() => waiting.length === 2)
  t.equal((await any('/')).status, 503)
  t.match(await line(), { reason: 'forward_auth_overloaded' })
  for (const respond of waiting) respond()
  for (const each of await Promise.all(first)) t.equal(each.status, 200)
})

t.test('a client that leaves ends the call', async (t) => {
  for (const at of ['url', 'service']) {
    let [calls, closed] = [0, 0]
    const server = await startService((request) => {
      calls++
      request.socket.once('close', () => closed++)
    })
    t.teardown(server.close)
    const auth = at === 'url' ? { url: server.url } : { service: 'auth' }
    const { begin, line } = await guarded(
      t,
      { ...auth, timeout: '30s' },
      { services: { auth: { instances: [server.url], mesh: { attemptTimeout: '30s', timeout: '30s' } } } }
    )
    const left = begin('/')
    await eventually(() => calls === 1)
    await left.leave()
    await eventually(() => closed === 1)
    t.match(await line(), { status: 499, error: 'JW_CLIENT_GONE' })
  }
})

t.test('a connection that the server closed while it was idle fails no request', async (t) => {
  let calls = 0
  const server = await startRawService((socket) => {
    socket.once('data', () => {
      calls++
      socket.write(`${head}content-length: 0\r\n\r\n`)
      socket.once('data', () => socket.resetAndDestroy())
    })
  })
  t.teardown(server.close)
  const { any } = await guarded(t, { url: server.url })
  for (let i = 0; i < 4; i++) t.equal((await any('/')).status, 200)
  t.equal(calls, 4)
})

t.test('a call that the server got is not sent again', async (t) => {
  for (const served of [0, 1]) {
    let calls = 0
    const server = await startRawService((socket) => {
      let before = served
      socket.on('data', () => {
        calls++
        if (before-- > 0) socket.write(`${head}content-length: 0\r\n\r\n`)
        // On a connection in use, the server has worked for a while.
        else setTimeout(() => socket.resetAndDestroy(), served * 600)
      })
    })
    t.teardown(server.close)
    const { any } = await guarded(t, { url: server.url, timeout: '1s' })
    for (let i = 0; i < served; i++) t.equal((await any('/')).status, 200)
    t.equal((await any('/')).status, 503)
    t.equal(calls, served + 1)
  }
})

t.test('Open Policy Agent decides by its result', async (t) => {
  const results: Record<string, unknown> = {
    '/true': { result: true },
    '/false': { result: false },
    '/undefined': {},
    '/allow': { result: { allow: true, headers: { 'x-user': 'amy', 'x-n': 7 } } },
    '/login': { result: { allow: false, status: 302, headers: { location: '/login' } } },
    '/text': { result: { allow: false, status: 401, body: 'n\u00f6', headers: { 'WWW-Authenticate': ['A', 'B'] } } },
    '/liar': { result: { allow: false, status: 200 } },
    '/string': { result: { allow: 'yes' } },
    '/list': { result: [true] },
    '/number': { result: 1 },
    '/array': [true],
    '/proto': { __proto__: null, result: { __proto__: { allow: true } } }
  }
  const { url, asked } = await authServer(t, (_request, response) => {
    const { input } = JSON.parse(asked.at(-1)!.body) as { input: { path: string } }
    if (input.path === '/broken') response.end('{"result": tru')
    else if (input.path === '/large') response.end(JSON.stringify({ result: true, text: 'a'.repeat(100_000) }))
    else response.writeHead(input.path === '/fails' ? 500 : 200).end(JSON.stringify(results[input.path]))
  })
  const { any, seen } = await guarded(t, {
    url: `${url}/v1/data/http`,
    format: 'opa',
    requestHeaders: ['x-role'],
    responseHeaders: ['x-user', 'x-n'],
    consumer: 'x-user'
  })
  t.equal((await any('/true?a=1&a=2', { method: 'DELETE', headers: { 'x-role': 'r', cookie: 'c' } })).status, 200)
  t.match(asked[0], { method: 'POST', url: '/v1/data/http', headers: { 'content-type': 'application/json' } })
  t.match(JSON.parse(asked[0]!.body), {
    input: { method: 'DELETE', path: '/true', query: { a: ['1', '2'] }, host: String, proto: 'http', ip: '127.0.0.1', headers: { 'x-role': 'r' }, consumer: null, claims: null }
  }) // biome-ignore format: one line
  t.strictSame(Object.keys((JSON.parse(asked[0]!.body) as { input: { headers: object } }).input.headers), ['x-role'])
  t.match((await seen('/allow', { 'x-user': 'forged' })).headers, { 'x-user': 'amy', 'x-n': '7' })
  t.match(await any('/login'), { status: 302, headers: { location: '/login' } })
  const text = await any('/text')
  t.match(text, { status: 401, headers: { 'www-authenticate': 'A, B', 'content-type': 'text/plain; charset=utf-8' } })
  t.equal(text.body.toString(), 'n\u00f6')
  for (const path of ['/false', '/undefined', '/liar', '/proto']) t.equal((await any(path)).status, 403, path)
  for (const path of ['/string', '/list', '/number', '/array', '/broken', '/large', '/fails'])
    t.equal((await any(path)).status, 503, path)
})

t.test('Open Policy Agent gets the decoded path, in whatever spelling', async (t) => {
  const { url, asked } = await authServer(t, (_request, response) => void response.end('{"result":true}'))
  const { any } = await guarded(t, { url, format: 'opa' })
  for (const path of ['/admin/%C3%BC', '/%61dmin//%c3%bc', '/admin/%c3%bc/?a=/b']) {
    t.equal((await any(path)).status, 200, path)
    const { input } = JSON.parse(asked.at(-1)!.body) as { input: { path: string; segments: string[] } }
    t.strictSame([input.path, input.segments], [path.split('?')[0], ['admin', '\u00fc']])
  }
})

t.test('a gateway that asks itself refuses', async (t) => {
  const relay = { port: 0 }
  const between = await startRawService((socket) => {
    const onward = connect(relay.port).socket
    socket.pipe(onward).pipe(socket)
  })
  t.teardown(between.close)
  const { any, port } = await guarded(t, { url: between.url })
  relay.port = port
  t.equal((await any('/')).status, 503)
})

t.test('what cannot be is a fault with the way to mend it', async (t) => {
  const faults = async (forwardAuth: object) => {
    try {
      const gateway = await startGateway({
        services: { any: { instances: ['http://127.0.0.1:1'] } },
        routes: [{ name: 'a', match: { path: '/' }, service: 'any', edge: { forwardAuth } }]
      })
      await gateway.close()
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const url = 'http://127.0.0.1:1'
  const cache = { ttl: '1s', key: ['uri'] }
  t.equal(await faults({ url }), '')
  for (const [options, message] of [
    [{}, /needs url or service/],
    [{ url, service: 'any' }, /set either url or service/],
    [{ url, path: '/a' }, /belongs to service/],
    [{ url: 'http://u:p@h' }, /credentials in this URL/],
    [{ service: 'ani' }, /unknown service "ani"; did you mean "any"/],
    [{ url, responseHeaders: ['x-forwarded-for'] }, /set by the gateway itself/],
    [{ url, responseHeaders: ['x-request-id'] }, /set by the gateway itself/],
    [{ url, responseHeaders: ['content-length'] }, /set by the gateway itself/],
    [{ url, responseHeaders: ['x-a', 'X_A'] }, /listed twice/],
    [{ url, refusalHeaders: ['transfer-encoding'] }, /belongs to the connection/],
    [{ url, consumer: 'host' }, /belongs to the connection/],
    [{ url, format: 'opa', forwardBody: true }, /only with format: http/],
    [{ url, forwardBody: true, cache }, /may depend on the body/],
    [{ url, requestHeaders: ['a'], cache }, /write header:NAME there/],
    [{ url, cache: { ttl: '1s', key: ['claims'] } }, /only OPA gets the claims/],
    [{ url, cache: { ttl: '1s', key: ['cookie'] } }, /expected method, proto/],
    [{ address: url }, /write url/],
    [{ url, authResponseHeaders: ['x-a'] }, /write responseHeaders/]
  ] as const) {
    t.match(await faults(options), message, JSON.stringify(options))
  }
})
