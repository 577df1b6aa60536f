// slow: takes about 5 s
import type { Test } from 'tap'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, parse, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

async function limited(t: Test, edge: object, listen: object = {}, mesh: object = {}) {
  const seen = { requests: 0, bytes: 0, ended: 0, aborted: 0 }
  const service = await startService((request, response) => {
    seen.requests++
    request.on('data', (chunk: Buffer) => {
      seen.bytes += chunk.length
    })
    request.on('error', () => seen.aborted++)
    request.on('end', () => {
      seen.ended++
      response.end('ok')
    })
  })
  t.teardown(service.close)
  const services = { any: { instances: [service.url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any', edge }]
  const gateway = await startGateway({ listen, mesh, services, routes }, { log: true })
  t.teardown(gateway.close)
  return { ...gateway, seen }
}

const post = (...lines: string[]) => `${['POST / HTTP/1.1', 'Host: h', ...lines].join('\r\n')}\r\n\r\n`

t.test('a body with a Content-Length beyond the limit is refused before it is read', async (t) => {
  const { port, seen } = await limited(t, { bodyLimit: '1kb' })
  const client = connect(port, post('Content-Length: 1025'))
  const { text } = await client.closed
  const { status, headers, body } = parse(text)
  t.equal(status, 413)
  t.equal(headers.connection, 'close')
  t.match(JSON.parse(body), { code: 'JW_BODY_TOO_LARGE', statusCode: 413, error: 'Payload Too Large' })
  t.equal(seen.requests, 0)
  const fits = connect(port, post('Content-Length: 1024', 'Connection: close'))
  fits.send('x'.repeat(1024))
  t.equal(parse((await fits.closed).text).status, 200)
})

t.test('a service may respond before any of the body has arrived', async (t) => {
  const service = await startRawService((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno'))
  })
  t.teardown(service.close)
  const gateway = await startGateway({
    services: { any: { instances: [service.url] }, fresh: { instances: [service.url], mesh: { retry: false } } },
    routes: ['any', 'fresh'].map((name) => ({ name, match: { path: `/${name}`, methods: ['POST'] }, service: name }))
  })
  t.teardown(gateway.close)
  for (const path of ['/any', '/fresh']) {
    for (const framing of ['Content-Length: 10', 'Transfer-Encoding: chunked']) {
      const client = connect(gateway.port, post(framing).replace('POST /', `POST ${path}`))
      await client.until('\r\n\r\nno')
      t.equal(parse(client.received()).status, 413)
      client.socket.destroy()
    }
  }
})

t.test('a chunked body that exceeds the limit is aborted on both sides', async (t) => {
  const { port, seen, log } = await limited(t, { bodyLimit: '100kb' })
  const client = connect(port, post('Transfer-Encoding: chunked'))
  const chunk = `1000\r\n${'x'.repeat(4096)}\r\n`
  client.send(chunk)
  await eventually(() => seen.requests === 1)
  for (let n = 0; n < 30; n++) client.send(chunk)
  const { text } = await client.closed
  if (text !== '') t.match(parse(text), { status: 413, headers: { connection: 'close' } })
  await eventually(() => seen.aborted === 1)
  t.equal(seen.ended, 0, 'the service does not take the body for complete')
  t.ok(seen.bytes <= 100 * 1024)
  const line = () => log.find((line) => line.msg === 'request')
  await eventually(() => line() !== undefined)
  t.match(line(), { status: 413, error: 'JW_BODY_TOO_LARGE' })

  const small = connect(port, post('Transfer-Encoding: chunked', 'Connection: close'))
  small.send(`${chunk}0\r\n\r\n`)
  t.equal(parse((await small.closed).text).status, 200)
})

t.test('without a limit, any body passes', async (t) => {
  const { port, seen } = await limited(t, { bodyLimit: false })
  const client = connect(port, post('Content-Length: 3000000', 'Connection: close'))
  client.send(Buffer.alloc(3_000_000))
  t.equal(parse((await client.closed).text).status, 200)
  t.equal(seen.bytes, 3_000_000)
})

t.test('a client that stalls within its body gets 408', async (t) => {
  const { port, seen, log } = await limited(t, {}, { timeouts: { bodyIdle: '100ms' } })
  for (const [what, bytes] of [
    ['by length', `${post('Content-Length: 10')}abc`],
    ['chunked', `${post('Transfer-Encoding: chunked')}3\r\nabc\r\n`],
    ['nothing of it', post('Content-Length: 10')]
  ] as const) {
    const aborted = seen.aborted
    const { text } = await connect(port, bytes).closed
    t.match(parse(text), { status: 408, headers: { connection: 'close' } }, what)
    t.match(JSON.parse(parse(text).body), { code: 'JW_BODY_TIMEOUT' }, what)
    await eventually(() => seen.aborted === aborted + 1)
  }
  t.match(log.filter((line) => line.msg === 'request').length, 3)
  const slow = connect(port, post('Content-Length: 10', 'Connection: close'))
  for (let n = 0; n < 10; n++) {
    await new Promise((resolve) => setTimeout(resolve, 30))
    slow.send('x')
  }
  t.equal(parse((await slow.closed).text).status, 200, 'a slow body is not a stalled one')
})

t.test('clients that stall within their bodies do not count against the service', async (t) => {
  const breakers = { circuitBreaker: { minRequests: 2 }, outlierDetection: { consecutive5xx: 1 } }
  const mesh = { attemptTimeout: '100ms', timeout: '150ms', ...breakers }
  // The timeout that expires first decides.
  for (const [code, bodyIdle, idleTimeout] of [
    ['JW_BODY_TIMEOUT', '300ms', '60s'],
    ['JW_CALLER_SILENT', '60s', '300ms']
  ] as const) {
    const { port, log } = await limited(t, {}, { timeouts: { bodyIdle } }, { ...mesh, idleTimeout })
    const stalled = ['', 'abc'].flatMap((part) => Array.from({ length: 5 }, () => post('Content-Length: 10') + part))
    for (const { text } of await Promise.all(stalled.map((bytes) => connect(port, bytes).closed))) {
      const response = parse(text)
      t.match(response, { status: 408, headers: { connection: 'close' } })
      t.match(JSON.parse(response.body), { code })
    }
    const { text } = await connect(port, `${post('Content-Length: 1', 'Connection: close')}x`).closed
    t.equal(parse(text).status, 200)
    t.strictSame(
      log.filter(({ status }) => status === 504 || status === 503),
      []
    )
  }
})

t.test('a service that reads slowly is not the client’s fault', async (t) => {
  const service = await startService((request, response) => {
    setTimeout(() => {
      request.resume()
      request.on('end', () => response.end('ok'))
    }, 900)
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, {
    listen: { timeouts: { bodyIdle: '250ms' } },
    edge: { bodyLimit: false }
  })
  const client = connect(gateway.port, post('Content-Length: 20000000', 'Connection: close'))
  client.send(Buffer.alloc(20_000_000))
  t.equal(parse((await client.closed).text).status, 200)
})

t.test('a service that responds slowly is not the client’s fault either', async (t) => {
  const service = await startService((request, response) => {
    request.resume()
    setTimeout(() => response.end('ok'), 400)
  })
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { listen: { timeouts: { bodyIdle: '100ms' } } })
  const client = connect(gateway.port, `${post('Content-Length: 2', 'Connection: close')}ab`)
  t.equal(parse((await client.closed).text).status, 200)
})

t.test('a malformed chunk is 400, and the request to the service is aborted', async (t) => {
  const { port, seen } = await limited(t, {})
  const client = connect(port, `${post('Transfer-Encoding: chunked')}3\r\nabc\r\n`)
  await eventually(() => seen.requests === 1)
  client.send('zzz\r\n')
  t.equal(parse((await client.closed).text).status, 400)
  await eventually(() => seen.aborted === 1)
  t.equal(seen.ended, 0)
})

t.test('after malformed bytes, no error response is written into a response in progress', async (t) => {
  const service = await startRawService((socket) =>
    socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst'))
  )
  t.teardown(service.close)
  const gateway = await gatewayBefore(t, service.url, { mesh: { idleTimeout: '500ms' } })
  const client = connect(gateway.port, 'GET / HTTP/1.1\r\nHost: h\r\n\r\n')
  await client.until('first')
  client.send('nonsense\r\n\r\n')
  t.match((await client.closed).text, /first$/)
})

t.test('a body that exceeds the limit does not replace another refusal', async (t) => {
  const service = await startService((_request, response) => response.end())
  t.teardown(service.close)
  const gateway = await startGateway(
    {
      edge: { bodyLimit: '1kb' },
      services: { any: { instances: [service.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
    },
    {
      before: (server) =>
        void server.addHook('preHandler', async () => {
          await new Promise((resolve) => setTimeout(resolve, 50))
          throw Object.assign(new Error('no'), { statusCode: 403 })
        })
    }
  )
  t.teardown(gateway.close)
  const client = connect(gateway.port, `${post('Transfer-Encoding: chunked')}800\r\n${'x'.repeat(2048)}\r\n`)
  t.equal(parse(await client.until('"requestId"')).status, 403)
  client.socket.destroy()
})
