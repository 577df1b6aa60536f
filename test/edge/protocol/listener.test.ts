// slow: takes about 10 s
import { once } from 'node:events'
import type { ClientHttp2Session, ClientHttp2Stream, OutgoingHttpHeaders } from 'node:http2'
import http2 from 'node:http2'
import https from 'node:https'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import type { GatewayOptions, Seen } from '../../helpers/gateway.ts'
import {
  connect,
  get,
  parse,
  responding,
  startEcho,
  startGateway,
  startRawService,
  startService
} from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const { cert, key } = selfSigned(t)

async function listening(t: Test, url: string, listen: object = {}, options: GatewayOptions = {}, edge: object = {}) {
  const services = { any: { instances: [url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const gateway = await startGateway({ listen, edge, services, routes, mesh: { retry: false } }, options)
  t.teardown(gateway.close)
  return gateway
}

interface Result {
  status: number
  headers: http2.IncomingHttpHeaders
  body: string
  trailers: http2.IncomingHttpHeaders | null
  code: number
  ended: boolean
}

function session(t: Test, port: number): ClientHttp2Session {
  const client = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  client.on('error', () => {})
  t.teardown(() => client.destroy())
  return client
}

function collect(stream: ClientHttp2Stream): Promise<Result> {
  const result: Result = { status: 0, headers: {}, body: '', trailers: null, code: 0, ended: false }
  stream.on('response', (headers) => {
    result.status = Number(headers[':status'])
    result.headers = headers
  })
  stream.on('trailers', (trailers) => {
    result.trailers = trailers
  })
  stream.on('data', (chunk: Buffer) => {
    result.body += chunk.toString()
  })
  stream.on('end', () => {
    result.ended = true
  })
  stream.on('error', () => {})
  return new Promise((resolve) => stream.on('close', () => resolve({ ...result, code: stream.rstCode ?? 0 })))
}

const ask = (client: ClientHttp2Session, headers: OutgoingHttpHeaders, body?: string) => {
  const stream = client.request(headers, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  return collect(stream)
}

t.test('over TLS, the service gets X-Forwarded-Proto: https', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await listening(t, echo.url, { tls: { cert, key } })
  const body = await new Promise<string>((resolve, reject) => {
    const request = https.get(
      `https://127.0.0.1:${port}/x`,
      { rejectUnauthorized: false, agent: false },
      (response) => {
        let text = ''
        response.on('data', (chunk) => {
          text += chunk
        })
        response.on('end', () => resolve(text))
      }
    )
    request.on('error', reject)
  })
  const { headers } = JSON.parse(body) as Seen
  t.equal(headers['x-forwarded-proto'], 'https')
  t.equal(headers['x-forwarded-port'], String(port))
})

t.test('HTTP/2 and HTTP/1.1 are served on one port, by ALPN', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await listening(t, echo.url, { tls: { cert, key }, http2: true })
  for (const [offered, chosen] of [
    [['h2', 'http/1.1'], 'h2'],
    [['http/1.1'], 'http/1.1'],
    [undefined, false]
  ] as const) {
    const socket = tls.connect({
      port,
      host: '127.0.0.1',
      rejectUnauthorized: false,
      ALPNProtocols: offered && [...offered]
    })
    await new Promise((resolve) => socket.once('secureConnect', resolve))
    t.equal(socket.alpnProtocol, chosen)
    socket.destroy()
  }
  const client = session(t, port)
  const { status, headers, body } = await ask(client, {
    ':path': '/x?y', 'x-many': ['a', 'b'], cookie: ['a=1', 'b=2'], te: 'trailers', 'x-forwarded-for': '6.6.6.6'
  }) // biome-ignore format: short
  t.equal(status, 200)
  for (const name of ['connection', 'keep-alive', 'transfer-encoding']) t.notOk(name in headers, name)
  t.ok(headers['x-request-id'])
  const seen = JSON.parse(body) as Seen
  t.equal(seen.url, '/x?y')
  t.match(seen.headers, {
    host: `localhost:${port}`,
    via: /^2\.0 jingwei-/,
    te: 'trailers',
    'x-many': 'a, b',
    cookie: 'a=1; b=2',
    'x-forwarded-for': '127.0.0.1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': `localhost:${port}`,
    'x-forwarded-port': String(port)
  })
  t.equal(seen.rawHeaders.filter((name) => name === 'cookie').length, 1, 'HTTP/1.1 has one Cookie field')
  t.notOk(Object.keys(seen.headers).some((name) => name.startsWith(':')))
  t.equal(seen.headers['transfer-encoding'], undefined, 'no body where there was none')
  const posted = JSON.parse((await ask(client, { ':path': '/', ':method': 'POST' }, 'hello')).body) as Seen
  t.equal(posted.body, 'hello')
  t.equal((await ask(client, { ':path': '/a/../b' })).status, 400)
})

t.test('HTTP/2: cookies and trailers are forwarded, and a truncated response resets the stream', async (t) => {
  const service = await startRawService(
    responding(
      'HTTP/1.1 200 Fine\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nKeep-Alive: x\r\nTransfer-Encoding: chunked\r\n\r\n' +
        '2\r\nok\r\n0\r\nX-Sum: 7\r\nX-Two: b\r\n\r\n'
    )
  )
  t.teardown(service.close)
  const { port } = await listening(t, service.url, { tls: { cert, key }, http2: true })
  const response = await ask(session(t, port), { ':path': '/' })
  t.equal(response.body, 'ok')
  t.strictSame(response.headers['set-cookie'], ['a=1', 'b=2'])
  t.match(response.trailers, { 'x-sum': '7', 'x-two': 'b' })

  for (const framing of ['Content-Length: 100\r\n\r\npart', 'Transfer-Encoding: chunked\r\n\r\n4\r\npart\r\n']) {
    const broken = await startRawService((socket) => {
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\n${framing}`)
        setTimeout(() => socket.destroy(), 50)
      })
    })
    t.teardown(broken.close)
    const gateway = await listening(t, broken.url, { tls: { cert, key }, http2: true })
    const truncated = await ask(session(t, gateway.port), { ':path': '/' })
    t.equal(truncated.body, 'part')
    t.equal(truncated.code, http2.constants.NGHTTP2_INTERNAL_ERROR, 'the response is not complete')
  }
  const closedService = await startRawService(() => {})
  await closedService.close()
  const gone = await listening(t, closedService.url, { tls: { cert, key }, http2: true })
  t.match(await ask(session(t, gone.port), { ':path': '/' }), { status: 502, headers: { 'proxy-status': /refused/ } })
})

t.test('HTTP/2: every informational response is forwarded', async (t) => {
  const service = await startRawService(
    responding(
      'HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nLink: </b.css>\r\n\r\n' +
        'HTTP/1.1 104 Upload Resumption Supported\r\nUpload-Offset: 7\r\nContent-Length: 3\r\n\r\n' +
        'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
    )
  )
  t.teardown(service.close)
  const { port } = await listening(t, service.url, { tls: { cert, key }, http2: true })
  const stream = session(t, port).request({ ':path': '/' })
  const seen: http2.IncomingHttpHeaders[] = []
  stream.on('headers', (headers) => seen.push(headers))
  t.equal((await collect(stream)).body, 'ok')
  t.strictSame(
    seen.map(({ ':status': status, link, 'upload-offset': offset }) => ({ status, link, offset })),
    [
      { status: 102, link: undefined, offset: undefined },
      { status: 103, link: '</a.css>, </b.css>', offset: undefined },
      { status: 104, link: undefined, offset: '7' }
    ]
  )
  t.notOk(seen.some((headers) => 'content-length' in headers))
})

t.test('HTTP/2: a stream that the client resets cancels the exchange and is logged once as 499', async (t) => {
  let arrived = 0
  let aborted = 0
  let response = ''
  const service = await startRawService((socket) => {
    socket.once('data', () => {
      arrived++
      socket.write(response)
    })
    socket.once('close', () => aborted++)
  })
  t.teardown(service.close)
  const gateway = await listening(t, service.url, { tls: { cert, key }, http2: true }, { log: true })
  const lines = () => gateway.log.filter((line) => line.msg === 'request')
  const client = session(t, gateway.port)
  for (const [n, text] of [
    [1, ''],
    [2, 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart']
  ] as const) {
    response = text
    const stream = client.request({ ':path': '/' })
    stream.on('error', () => {})
    await eventually(() => arrived === n)
    if (text !== '') await new Promise((resolve) => stream.once('data', resolve))
    stream.close(http2.constants.NGHTTP2_CANCEL)
    await eventually(() => aborted === n && lines().length >= n)
    await new Promise((resolve) => setTimeout(resolve, 20))
    t.equal(lines().length, n)
    t.match(lines().at(-1), { status: 499, error: 'JW_CLIENT_GONE', ip: '127.0.0.1' })
  }
})

t.test('HTTP/2: the limits of body and header section apply, and a silent body times out', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const listen = { tls: { cert, key }, http2: true, limits: { headers: '2kb' }, timeouts: { bodyIdle: '100ms' } }
  const { port } = await listening(t, echo.url, listen, {}, { bodyLimit: '1kb' })
  const client = session(t, port)
  t.equal((await ask(client, { ':path': '/', ':method': 'POST' }, 'x'.repeat(1024))).status, 200)
  const large = await ask(client, { ':path': '/', ':method': 'POST' }, 'x'.repeat(1025))
  t.equal(large.status, 413)
  t.notOk('connection' in large.headers)
  const silent = client.request({ ':path': '/', ':method': 'POST' }, { endStream: false })
  silent.write('x')
  const response = collect(silent)
  await new Promise((resolve) => silent.once('response', resolve))
  silent.close()
  t.equal((await response).status, 408)
  const refused = await ask(session(t, port), { ':path': '/', 'x-large': 'x'.repeat(4000) })
  t.equal(refused.status, 431)
})

t.test('HTTP/2: 100 Continue is sent when the body is wanted', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await listening(t, echo.url, { tls: { cert, key }, http2: true }, {}, { bodyLimit: '1kb' })
  const client = session(t, port)
  const expecting = { ':path': '/', ':method': 'POST', expect: '100-continue' }
  const stream = client.request(expecting)
  const response = collect(stream)
  await new Promise<void>((resolve) => stream.once('continue', resolve))
  stream.end('hello')
  t.equal((JSON.parse((await response).body) as Seen).body, 'hello')
  let arrived = false
  const refused = client.request({ ...expecting, 'content-length': '1025' })
  refused.once('continue', () => {
    arrived = true
  })
  const refusal = collect(refused)
  await new Promise((resolve) => refused.once('response', resolve))
  refused.close()
  t.equal((await refusal).status, 413)
  t.notOk(arrived)
  const odd = client.request({ ...expecting, expect: 'nonsense' }, { endStream: true })
  t.equal((await collect(odd)).status, 417)
  t.equal((await ask(client, { ':path': '/' })).status, 200, 'the session stays open')
})

t.test('connections over the limit are closed', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await listening(t, echo.url, { limits: { connections: 2 } })
  const request = 'GET / HTTP/1.1\r\nHost: h\r\n\r\n'
  const held = [connect(port, request), connect(port, request)]
  for (const client of held) await client.until('200 OK')
  t.equal((await connect(port, request).closed).text, '')
  held[0]?.socket.destroy()
  await held[0]?.closed
  let response = ''
  while (response === '')
    response = (await connect(port, request.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')).closed).text
  t.equal(parse(response).status, 200)
  held[1]?.socket.destroy()
})

t.test('idle connections are closed, and a header section that arrives too slowly is 408', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const { port } = await listening(t, echo.url, { timeouts: { headers: '200ms', keepAlive: '100ms' } })
  t.equal((await get(port, '/')).status, 200)
  const idle = connect(port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  t.match((await idle.closed).text, /200 OK/)
  const slow = connect(port, 'GET / HTTP/1.1\r\nHo')
  const drip = setInterval(() => slow.send('s'), 100)
  const { text } = await slow.closed
  clearInterval(drip)
  t.equal(parse(text).status, 408)
})

t.test('the same timeouts apply over TLS with HTTP/2 on', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const timeouts = { headers: '200ms', keepAlive: '100ms' }
  const { port } = await listening(t, echo.url, { tls: { cert, key }, http2: true, timeouts })
  const socket = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['http/1.1'] })
  let text = ''
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString()
  })
  socket.on('error', () => {})
  socket.write('GET / HTTP/1.1\r\nHo')
  await new Promise((resolve) => socket.once('close', resolve))
  t.equal(parse(text).status, 408)
  const idle = session(t, port)
  t.equal((await ask(idle, { ':path': '/' })).status, 200)
  await new Promise<void>((resolve) => (idle.closed ? resolve() : idle.once('close', () => resolve())))
  t.pass('an idle session ends')
})

t.test('over TLS: an incomplete handshake or header section times out, for any other bytes', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const timeouts = { headers: '300ms', keepAlive: '300ms' }
  const { port } = await listening(t, echo.url, { tls: { cert, key }, http2: true, timeouts })
  await connect(port).closed
  const hello = connect(port, Buffer.from('16030100f8010000', 'hex'))
  const drip = setInterval(() => hello.socket.writable && hello.send(Buffer.alloc(1)), 50)
  await hello.closed
  clearInterval(drip)

  const settings = Buffer.from('000000040000000000', 'hex')
  const ping = Buffer.from('0000080600000000000000000000000000', 'hex')
  // HEADERS without END_HEADERS, with the first field
  const half = Buffer.from('0000010101000000' + '0182', 'hex')
  for (const first of [[], [settings], [settings, half]]) {
    const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] })
    client.on('error', () => {}).resume()
    await once(client, 'secureConnect')
    client.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), ...first]))
    // A PING within a header block would be an error.
    const drip = setInterval(() => first.length < 2 && client.writable && client.write(ping), 50)
    await once(client, 'close')
    clearInterval(drip)
  }
  t.pass('all are closed')
})

t.test('HTTP/2: a silent open stream keeps its connection, and the next stream is served', async (t) => {
  const service = await startService((_request, response) => {
    response.write('begun')
    setTimeout(() => response.end('ended'), 1000)
  })
  t.teardown(service.close)
  const timeouts = { headers: '200ms', keepAlive: '200ms' }
  const { port } = await listening(t, service.url, { tls: { cert, key }, http2: true, timeouts })
  const client = session(t, port)
  t.equal((await ask(client, { ':path': '/' })).body, 'begunended')
  t.equal((await ask(client, { ':path': '/' })).body, 'begunended')
})

t.test('HTTP/2: a connection that reads nothing at all is closed', async (t) => {
  const service = await startService((_request, response) => response.end(Buffer.alloc(32 * 1024 * 1024)))
  t.teardown(service.close)
  const timeouts = { headers: '300ms', keepAlive: '300ms', sendIdle: '100ms' }
  const { port, server } = await listening(t, service.url, { tls: { cert, key }, http2: true, timeouts })
  const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  client.on('error', () => {})
  await once(client, 'secureConnect')
  const initialWindow = Buffer.from('00000604000000000000047fffffff', 'hex')
  const window = Buffer.from('0000040800000000007fff0000', 'hex')
  const fields = Buffer.concat([Buffer.from('8287844109', 'hex'), Buffer.from('localhost')])
  const frameHeader = Buffer.from([0, 0, fields.length, 1, 5, 0, 0, 0, 1])
  client.pause()
  client.write(
    Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), initialWindow, window, frameHeader, fields])
  )
  const connections = () =>
    new Promise<number>((resolve) => server.server.getConnections((_error, count) => resolve(count)))
  while ((await connections()) > 0) await new Promise((resolve) => setTimeout(resolve, 50))
  client.destroy()
  t.pass('closed')
})

t.test('HTTP/2: endless early hints are not queued for a client that does not read', async (t) => {
  const { promise: all, resolve: sent } = Promise.withResolvers<void>()
  const service = await startRawService((socket) => {
    socket.once('data', async () => {
      for (let i = 0; i < 30_000; i++) {
        const hint = `HTTP/1.1 103 Early Hints\r\nLink: </${i}${'a'.repeat(1000)}>\r\n\r\n`
        if (!socket.write(hint)) await once(socket, 'drain')
      }
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', () => sent())
    })
  })
  t.teardown(service.close)
  const { port } = await listening(t, service.url, { tls: { cert, key }, http2: true })
  const client = tls.connect({ port, host: '127.0.0.1', rejectUnauthorized: false, ALPNProtocols: ['h2'] })
  await once(client, 'secureConnect')
  const settings = Buffer.from('000000040000000000', 'hex')
  // :method GET, :scheme https, :path /, :authority localhost
  const fields = Buffer.concat([Buffer.from('8287844109', 'hex'), Buffer.from('localhost')])
  const headers = Buffer.concat([Buffer.from([0, 0, fields.length, 1, 5, 0, 0, 0, 1]), fields])
  client.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), settings, headers]))
  client.pause()
  await all
  let bytes = 0
  let last = ''
  client.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    last = (last + chunk.toString('latin1')).slice(-100)
  })
  client.resume()
  await eventually(() => last.includes('ok'))
  t.ok(bytes < 100_000, `${bytes} bytes of 30 MB`)
  client.destroy()
})
