// slow: takes about 20 s
/** The edge without the mesh, before services that are down, slow or broken, and clients that disconnect. */
import type { Socket } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { eventually } from '../helpers/eventually.ts'
import { connect, get, responding, startGateway, startRawService, startService } from '../helpers/gateway.ts'

async function before(t: Test, url: string, forward: object = {}, protocol: Protocol = 'HTTP/1.1', route: object = {}) {
  const gateway = await startGateway(
    {
      mesh: false,
      forward,
      admin: { port: 0 },
      listen: listenFor(t, protocol),
      services: { one: { instances: [url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'one', ...route }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const metrics = async () => (await gateway.server.admin!.inject('/metrics')).body
  return { ...gateway, client: anyClient(t, protocol, gateway.port), metrics }
}

async function rawService(t: Test, onSocket: (socket: Socket) => void) {
  const service = await startRawService(onSocket)
  t.teardown(service.close)
  return service
}

/** Returns the access line of a path, once it is logged. */
async function lineOf(log: Record<string, unknown>[], path: string) {
  const find = () => log.find((line) => line.msg === 'request' && line.path === path)
  await eventually(() => find() !== undefined)
  return find()!
}

const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

t.test('errors before the response: status, code, Proxy-Status, access log and metric', async (t) => {
  const cases: [name: string, url: string, expected: [number, string, string, string | null | undefined, string]][] = [
    ['refused', 'http://127.0.0.1:1', [502, 'JW_UPSTREAM_REFUSED', 'connection_refused', 'ECONNREFUSED', 'connect-failure']],
    ['no such host', 'http://no-such-host.invalid', [502, 'JW_UPSTREAM_DNS', 'dns_error', 'ENOTFOUND', 'connect-failure']],
    ['reset', (await rawService(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))).url, [502, 'JW_UPSTREAM_RESET', 'connection_terminated', 'ECONNRESET', 'reset']],
    ['closed', (await rawService(t, (socket) => socket.once('data', () => socket.end()))).url, [502, 'JW_UPSTREAM_RESET', 'connection_terminated', 'UND_ERR_SOCKET', 'reset']],
    ['malformed', (await rawService(t, responding('HTTP/9 what\r\n\r\n'))).url, [502, 'JW_UPSTREAM_MALFORMED', 'http_protocol_error', undefined, 'other']],
    ['large header section', (await rawService(t, responding(`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(5000)}\r\n\r\n`))).url, [502, 'JW_UPSTREAM_HEADERS_TOO_LARGE', 'http_response_header_section_size', 'UND_ERR_HEADERS_OVERFLOW', 'other']],
    ['no TLS', (await rawService(t, (socket) => socket.end(ok))).url.replace('http:', 'https:'), [502, 'JW_UPSTREAM_TLS', 'tls_protocol_error', 'ERR_SSL_WRONG_VERSION_NUMBER', 'connect-failure']],
    ['silent', (await rawService(t, () => {})).url, [504, 'JW_CALL_TIMEOUT', 'http_response_timeout', null, 'timeout']]
  ] // biome-ignore format: a table
  for (const [name, url, [status, code, type, cause, outcome]] of cases) {
    const { port, log, metrics } = await before(t, url, {
      maxHeaderSize: '4kb',
      ...(name === 'silent' && { timeout: '300ms' })
    })
    const response = await get(port, '/x')
    t.equal(response.status, status, name)
    t.match(JSON.parse(response.body), { code }, name)
    t.equal(response.headers['proxy-status'], `jingwei; error=${type}`, name)
    const line = await lineOf(log, '/x')
    t.match(line, {
      status,
      error: code,
      service: 'one',
      instance: new URL(url).origin,
      attempts: 1,
      answeredBy: 'gateway'
    })
    // The parser's errors do not always have a code.
    if (cause !== undefined) t.equal(line.cause ?? null, cause, name)
    const text = await metrics()
    t.match(text, `jingwei_forward_calls_total{service="one",outcome="${outcome}"} 1\n`, name)
    t.match(text, 'jingwei_forward_call_duration_seconds_count{service="one"} 1\n', name)
    t.match(text, new RegExp(`jingwei_edge_requests_total\\{[^}]*status="${status}"[^}]*\\} 1\n`), name)
  }
})

t.test('responses that undici refuses', async (t) => {
  const interim = 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n'
  const cases: [sent: string, code: string, reason: string | undefined][] = [
    [`${interim}${ok}`, 'JW_UPSTREAM_MALFORMED', 'continue_unasked'],
    ['HTTP/1.1 000 X\r\nContent-Length: 0\r\n\r\n', 'JW_UPSTREAM_MALFORMED', undefined],
    ['HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n', 'JW_UPSTREAM_MALFORMED', undefined],
    ['HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n', 'JW_BAD_UPGRADE', undefined]
  ]
  for (const [sent, code, reason] of cases) {
    for (const via of ['bridge', 'http-proxy']) {
      const service = await rawService(t, (socket) => socket.on('data', () => socket.write(sent)))
      const { port, log, metrics } = await before(t, service.url, {}, 'HTTP/1.1', { via })
      const response = await get(port, '/x')
      t.match(response, { status: 502 }, `${via} ${sent}`)
      t.match(JSON.parse(response.body), { code })
      const line = await lineOf(log, '/x')
      t.match(line, { status: 502, error: code, service: 'one', attempts: 1 })
      t.equal(line.reason, reason)
      t.strictSame(
        log.filter(({ level }) => level === 'error' || level === 50),
        []
      )
      t.match(await metrics(), 'jingwei_forward_calls_total{service="one",outcome="other"} 1\n')
    }
  }
})

t.test('a request is sent once, whatever the status', async (t) => {
  let count = 0
  const service = await startService((_request, response) => {
    count++
    response.writeHead(503, { 'retry-after': '0' }).end('busy')
  })
  t.teardown(service.close)
  const { port, log, metrics } = await before(t, service.url)
  t.match(await get(port, '/x'), { status: 503, body: 'busy' })
  t.equal(count, 1)
  t.match(await lineOf(log, '/x'), { status: 503, service: 'one', attempts: 1 })
  t.equal((await lineOf(log, '/x')).error, undefined)
  t.match(await metrics(), 'jingwei_forward_calls_total{service="one",outcome="5xx"} 1\n')
})

t.test('connecting takes too long', async (t) => {
  // The service never answers the TLS handshake.
  const service = await rawService(t, (socket) => socket.resume())
  const { port, log } = await before(t, service.url.replace('http:', 'https:'), {
    connectTimeout: '200ms',
    timeout: '5s'
  })
  t.match(await get(port, '/x'), { status: 504, headers: { 'proxy-status': 'jingwei; error=connection_timeout' } })
  t.match(await lineOf(log, '/x'), { error: 'JW_UPSTREAM_CONNECT_TIMEOUT', cause: 'UND_ERR_CONNECT_TIMEOUT' })
})

for (const protocol of protocols) {
  t.test(`${protocol}: a response that breaks off is not whole`, async (t) => {
    const head = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'
    let reset = () => {}
    const service = await rawService(t, (socket) => {
      reset = () => void socket.resetAndDestroy()
      socket.once('data', () => socket.write(head))
    })
    const { client, log } = await before(t, service.url, {}, protocol)
    const call = client.begin('/x')
    await call.data
    reset()
    const { status, body, isWhole } = await call.response
    t.equal(status, 200)
    t.equal(body.toString(), 'half')
    t.notOk(isWhole)
    t.match(await lineOf(log, '/x'), { status: 200, error: 'JW_UPSTREAM_RESET', bytesSent: 4 })
  })

  t.test(`${protocol}: a client that disconnects ends the call`, async (t) => {
    const sockets: Socket[] = []
    let isClosed = false
    const service = await rawService(t, (socket) => {
      sockets.push(socket.resume())
      socket.once('close', () => {
        isClosed = true
      })
    })
    const { client } = await before(t, service.url, {}, protocol)
    const atService = async () => void (await eventually(() => (sockets[0]?.bytesRead ?? 0) > 0))
    await client.leave('/before', atService)
    await eventually(() => isClosed)
    t.pass('before the response')
    isClosed = false
    const begun = await startRawService((socket) => {
      socket.resume()
      socket.once('close', () => {
        isClosed = true
      })
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome'))
    })
    t.teardown(begun.close)
    const other = await before(t, begun.url, {}, protocol)
    await other.client.leave('/within', ({ data }) => data)
    await eventually(() => isClosed)
    t.pass('within the response')
    t.match(await other.metrics(), 'jingwei_forward_calls_total{service="one",outcome="aborted"} 1\n')
  })
}

t.test('a client that disconnects while the service does not even accept the connection', async (t) => {
  // TLS: the service never answers the handshake.
  const service = await rawService(t, () => {})
  const { client, server } = await before(t, service.url.replace('http:', 'https:'), { connectTimeout: '20s' })
  const isCalled = async () => void (await eventually(() => server.mesh.service('one').status().active === 1))
  await client.leave('/', isCalled)
  await eventually(() => server.mesh.service('one').status().active === 0)
  t.pass('the call ends at once')
})

t.test('pauses and the time of a whole response', async (t) => {
  const slow = (everyMs: number) =>
    rawService(t, (socket) => {
      socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx'))
      const timer = setInterval(() => socket.write('x'), everyMs)
      socket.once('close', () => clearInterval(timer))
    })
  const idle = await before(t, (await slow(60_000)).url, { idleTimeout: '300ms' })
  t.ok((await connect(idle.port, 'GET /x HTTP/1.1\r\nHost: h\r\n\r\n').closed).text.startsWith('HTTP/1.1 200'))
  t.match(await lineOf(idle.log, '/x'), { error: 'JW_UPSTREAM_TIMEOUT' })
  const whole = await before(t, (await slow(20)).url, {}, 'HTTP/1.1', { forward: { responseTimeout: '300ms' } })
  t.ok((await connect(whole.port, 'GET /x HTTP/1.1\r\nHost: h\r\n\r\n').closed).text.startsWith('HTTP/1.1 200'))
  t.match(await lineOf(whole.log, '/x'), { error: 'JW_RESPONSE_TIMEOUT' })
})

t.test('the timeout of a route', async (t) => {
  const service = await rawService(t, () => {})
  const { port } = await before(t, service.url, { timeout: '1m' }, 'HTTP/1.1', { forward: { timeout: '200ms' } })
  t.equal((await get(port, '/')).status, 504)
})

t.test('an upload that is longer than the timeout', async (t) => {
  const service = await startService((request, response) => {
    let bytes = 0
    request.on('data', (chunk: Buffer) => {
      bytes += chunk.length
    })
    request.on('end', () => response.end(String(bytes)))
  })
  t.teardown(service.close)
  const { port } = await before(t, service.url, { timeout: '1s' })
  const client = connect(port, 'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\nConnection: close\r\n\r\n')
  for (let i = 0; i < 8; i++) {
    client.send('x')
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  t.match((await client.closed).text, /^HTTP\/1\.1 200 [\s\S]*8$/)
})

t.test('more requests than maxRequests', async (t) => {
  const waiting: Socket[] = []
  const service = await rawService(t, (socket) => {
    socket.once('data', () => waiting.push(socket))
  })
  const { port, log, metrics } = await before(t, service.url, { maxRequests: 2 })
  const first = [get(port, '/1'), get(port, '/2')]
  await eventually(() => waiting.length === 2)
  t.match(await get(port, '/3'), { status: 503, headers: { 'retry-after': '1' } })
  t.match(await lineOf(log, '/3'), { error: 'JW_OVERLOADED', reason: 'overload_requests' })
  for (const socket of waiting) socket.write(ok)
  for (const response of await Promise.all(first)) t.match(response, { status: 200, body: 'ok' })
  t.match(await metrics(), 'jingwei_forward_calls_total{service="one",outcome="overloaded"} 1\n')
})

t.test('a slow reader holds up its own service connection, not the memory of the gateway', async (t) => {
  const size = 40 * 1024 * 1024
  let written = 0
  const service = await startService((_request, response) => {
    response.setHeader('content-length', String(size))
    const chunk = Buffer.alloc(64 * 1024, 1)
    const write = () => {
      while (written < size) {
        written += chunk.length
        if (!response.write(chunk)) {
          response.once('drain', write)
          return
        }
      }
      response.end()
    }
    write()
  })
  t.teardown(service.close)
  const { port } = await before(t, service.url)
  const client = connect(port, 'GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  client.socket.pause()
  let last = -1
  await eventually(async () => {
    const before = last
    last = written
    await new Promise((resolve) => setTimeout(resolve, 200))
    return before === written && written > 0
  })
  t.ok(written < size / 2, `${written} bytes were taken from the service`)
  client.socket.resume()
  const { text } = await client.closed
  t.equal(text.length - text.indexOf('\r\n\r\n') - 4, size)
})
