// slow: starts Consul, Redis and a dozen processes
// The four deployment models, as `npm run models` starts them: from one configuration, in front of the same services. Clients
// and services must not see which model is in use.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, Server } from 'node:http'
import { createServer, request } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { Model } from '../cluster/models.ts'
import { startModels } from '../cluster/models.ts'

t.setTimeout(300_000)

/** A request as a service got it. */
interface Seen {
  readonly service: string
  readonly method: string | undefined
  readonly target: string | undefined
  readonly headers: readonly string[]
  /** SHA-256. */
  readonly body: string
  readonly trailers: readonly string[]
}

let seen: Seen[] = []
/** Requests that were failed on purpose, by target. */
const failed = new Map<string, number>()

/** Headers that differ between any two requests or gateways, and the identity of the caller that only mTLS knows. */
const ofHop = new Set(['x-request-id', 'via', 'x-forwarded-port', 'x-forwarded-client-cert'])

/** Returns header lines by name. Lines of one name keep their order, which has a meaning (RFC 9110, 5.3). */
function pairs(raw: readonly string[]): string[] {
  const fields = raw.flatMap((name, at) => (at % 2 === 0 ? [[name.toLowerCase(), raw[at + 1]] as const] : []))
  const shown = fields.filter(([name]) => !ofHop.has(name)).toSorted(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
  // Calls of `compose` have the `Host` of the instance, which in a mesh is the service's sidecar.
  return shown.map(([name, value]) => `${name}: ${value}`.replace(/^(host: 127\.0\.0\.1):\d+$/, '$1'))
}

const record = (service: string, { method, url, rawHeaders, rawTrailers }: IncomingMessage, body: string) => {
  const digest = createHash('sha256').update(body).digest('hex')
  seen.push({ service, method, target: url, headers: pairs(rawHeaders), body: digest, trailers: pairs(rawTrailers) })
}

/** Starts a service that records its requests. `?fail=N`: 503 to the first N requests with this target; `?delay=MS`. */
async function recorder(service: string): Promise<Server> {
  const server = createServer(async (incoming, response) => {
    const target = incoming.url ?? '/'
    const { searchParams, pathname } = new URL(target, 'http://service')
    const body = await text(incoming)
    if (pathname === '/health') return void response.end()
    record(service, incoming, body)
    await sleep(Number(searchParams.get('delay')))
    const count = failed.get(target) ?? 0
    const fails = count < Number(searchParams.get('fail'))
    if (fails) failed.set(target, count + 1)
    const mayTrail = incoming.method === 'POST'
    const headers = { 'content-type': 'application/json', 'x-of-service': 'a', ...(mayTrail && { trailer: 'x-sum' }) }
    response.writeHead(fails ? 503 : 200, headers)
    if (mayTrail) response.addTrailers({ 'x-sum': 'of-response' })
    response.end(JSON.stringify({ service, fails, length: body.length }))
  })
  server.on('upgrade', (incoming, socket: Socket) => {
    record(service, incoming, '')
    socket.on('error', () => {})
    const lines = ['HTTP/1.1 101 Switching Protocols', 'upgrade: websocket', 'connection: Upgrade', 'x-of-service: ws']
    socket.write(`${lines.join('\r\n')}\r\nsec-websocket-accept: ${accept}\r\n\r\n`)
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return server
}

/** RFC 6455, 1.3. */
const key = 'dGhlIHNhbXBsZSBub25jZQ=='
const accept = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

const services = {
  orders: await recorder('orders'),
  'orders-next': await recorder('orders-next'),
  products: await recorder('products')
}
const portOf = (server: Server) => (server.address() as AddressInfo).port
const ports = {
  orders: portOf(services.orders),
  'orders-next': portOf(services['orders-next']),
  products: portOf(services.products)
}
const events: string[] = []
const models = await startModels((line) => events.push(line), ports)
t.teardown(async () => {
  await models.stop()
  for (const server of Object.values(services)) {
    server.closeAllConnections()
    server.close()
  }
})

interface Sent {
  readonly method?: string
  readonly headers?: Record<string, string | string[]>
  /** Chunks of a body without a known length. */
  readonly chunks?: readonly string[]
  readonly trailers?: Record<string, string>
  /** True to send the header section alone. */
  readonly isUnfinished?: boolean
}

/** Headers of a response that differ between any two. */
const ofResponse = /^(date|x-request-id|ratelimit.*|keep-alive): /

/** Sends a request, and returns the response as a client sees it. */
async function send(base: string, path: string, { method, headers, chunks = [], trailers, isUnfinished }: Sent = {}) {
  const url = new URL(path, base)
  const outgoing = request(url, {
    method: method ?? 'GET',
    agent: false,
    headers: { host: 'api.example.com', ...headers },
    signal: AbortSignal.timeout(20_000)
  })
  for (const chunk of chunks) outgoing.write(chunk)
  if (trailers !== undefined) outgoing.addTrailers(trailers)
  if (isUnfinished) outgoing.flushHeaders()
  else outgoing.end()
  const [response] = (await once(outgoing, 'response')) as [IncomingMessage]
  const body = await text(response)
  if (isUnfinished) outgoing.destroy()
  return {
    status: response.statusCode,
    headers: pairs(response.rawHeaders).filter((line) => !ofResponse.test(line)),
    body: body.replace(/"requestId":"[^"]*"/, '"requestId":""'),
    trailers: response.rawTrailers
  }
}

/** Runs the same in each model; all must have the result of the first, and let the services see the same requests. */
async function inEach<T>(
  t: Test,
  run: (model: Model, index: number) => Promise<T>
): Promise<{ result: T; seen: Seen[] }> {
  let first: { result: T; seen: Seen[] } | undefined
  for (const [index, model] of models.all.entries()) {
    seen = []
    const result = await run(model, index)
    const found = { result, seen: seen.toSorted((a, b) => (a.service < b.service ? -1 : 1)) }
    first ??= found
    t.strictSame(found.result, first.result, `${model.name}: response`)
    t.strictSame(found.seen, first.seen, `${model.name}: requests at the services`)
  }
  return first!
}

t.test('a request and its response are the same in each model', async (t) => {
  const { result, seen } = await inEach(t, async ({ url }) =>
    send(url, '/api/orders/7%2e?q=a%20b&q=c', {
      headers: {
        accept: 'application/json',
        cookie: 'a=1; b=2',
        'x-list': ['1', '2'],
        origin: 'https://shop.example.com'
      }
    })
  )
  t.equal(result.status, 200)
  t.ok(
    result.headers.some((line) => /^access-control-allow-origin: https:\/\/shop/i.test(line)),
    'the edge'
  )
  t.match(seen, [{ service: 'orders', method: 'GET', target: '/orders/7%2e?q=a%20b&q=c' }])
  const [{ headers = [] } = {}] = seen
  t.ok(headers.includes('host: api.example.com'))
  t.ok(headers.includes('x-list: 2'))
  t.notOk(headers.some((line) => line.startsWith('x-jingwei-')))
})

t.test('so are a body of unknown length, and trailers both ways', async (t) => {
  const { result, seen } = await inEach(t, async ({ url }) =>
    send(url, '/api/orders', {
      method: 'POST',
      headers: { trailer: 'x-check', te: 'trailers', 'transfer-encoding': 'chunked' },
      chunks: ['one', 'x'.repeat(100_000)],
      trailers: { 'x-check': 'sum' }
    })
  )
  t.match(result, { status: 200, trailers: ['x-sum', 'of-response'] })
  t.match(seen, [{ method: 'POST', trailers: ['x-check: sum'] }])
  t.match(JSON.parse(result.body), { length: 100_003 })
})

t.test('so are HEAD, and the refusals of the edge', async (t) => {
  const head = await inEach(t, async ({ url }) => send(url, '/api/orders', { method: 'HEAD' }))
  t.match(head, { result: { status: 200, body: '' }, seen: [{ method: 'HEAD' }] })
  const tooLarge = await inEach(t, async ({ url }) =>
    send(url, '/api/orders', { method: 'POST', headers: { 'content-length': `${2 ** 21}` }, isUnfinished: true })
  )
  t.match(tooLarge, { result: { status: 413 }, seen: [] })
  const unknown = await inEach(t, async ({ url }) => send(url, '/none'))
  t.match(unknown, { result: { status: 404 }, seen: [] })
})

t.test("a route's timeout has the same effect", async (t) => {
  const { result, seen } = await inEach(t, async ({ url }) => send(url, '/api/impatient?delay=3000'))
  t.equal(result.status, 504)
  t.match(result.body, /"code":"JW_CALL_TIMEOUT"/)
  t.ok(result.headers.some((line) => /^proxy-status: jingwei; error=http_response_timeout/i.test(line)))
  t.equal(seen.length, 1)
  const slow = await inEach(t, async ({ url }) => send(url, '/api/orders?delay=600'))
  t.equal(slow.result.status, 200, 'the route that inherits the timeout of the file')
})

t.test("a route's retries have the same effect, and are not multiplied", async (t) => {
  const helped = await inEach(t, async ({ url }) => {
    failed.clear()
    return send(url, '/api/persistent?fail=3')
  })
  t.match(helped, { result: { status: 200 }, seen: { length: 4 } })
  const inVain = await inEach(t, async ({ url }) => {
    failed.clear()
    return send(url, '/api/persistent?fail=9')
  })
  t.match(inVain, { result: { status: 503 }, seen: { length: 4 } })
  t.match(JSON.parse(inVain.result.body), { fails: true }, 'the last response of the service')
  const other = await inEach(t, async ({ url }) => {
    failed.clear()
    return send(url, '/api/orders?fail=1')
  })
  t.match(other, { result: { status: 503 }, seen: { length: 1 } })
})

t.test('a split has the same effect', async (t) => {
  const tester = await inEach(t, async ({ url }) => send(url, '/api/canary', { headers: { 'x-tester': 'yes' } }))
  t.match(tester.seen, [{ service: 'orders-next' }])
  const others = await inEach(t, async ({ url }) => {
    const calls = await Promise.all(Array.from({ length: 120 }, async () => send(url, '/api/canary')))
    const next = calls.filter(({ body }) => body.includes('orders-next')).length
    // A share of 1 in 4: the mean is 30, and these bounds are six standard deviations away.
    t.ok(next > 1 && next < 59, `${next} of 120`)
    const bodies = new Set(calls.map(({ body }) => body))
    seen = []
    return [...bodies].sort()
  })
  t.equal(others.result.length, 2, 'both services')
})

t.test('a composed response is the same', async (t) => {
  const { result, seen } = await inEach(t, async ({ url }) => send(url, '/api/shop'))
  t.equal(result.status, 200)
  t.match(JSON.parse(result.body), { orders: { service: 'orders' }, products: { service: 'products' } })
  t.match(seen, [{ target: '/orders' }, { target: '/products' }])
})

/** Opens a WebSocket, sends bytes, and returns the response and the bytes that come back. */
async function socketOf(base: string) {
  const outgoing = request(new URL('/api/orders/live', base), {
    agent: false,
    headers: {
      host: 'api.example.com',
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': key
    },
    signal: AbortSignal.timeout(20_000)
  })
  outgoing.end()
  const [response, socket, head] = (await once(outgoing, 'upgrade')) as [IncomingMessage, Socket, Buffer]
  socket.on('error', () => {})
  socket.write('ping over the tunnel')
  let echo = head.toString()
  while (echo.length < 20) echo += String((await once(socket, 'data', { signal: AbortSignal.timeout(20_000) }))[0])
  socket.destroy()
  const headers = pairs(response.rawHeaders).filter((line) => !ofResponse.test(line))
  return { status: response.statusCode, headers, echo }
}

t.test('a WebSocket is the same', async (t) => {
  const { result, seen } = await inEach(t, async ({ url }) => socketOf(url))
  t.match(result, { status: 101, echo: 'ping over the tunnel' })
  t.match(seen, [{ service: 'orders', method: 'GET', target: '/orders/live' }])
})

const metricsOf = async (adminUrl: string) =>
  (await fetch(`${adminUrl}/metrics`, { signal: AbortSignal.timeout(20_000) })).text()

t.test('in the second model the mesh half runs in the sidecar alone', async (t) => {
  const ofSidecar = await metricsOf(models.sidecarAdminUrl)
  for (const route of ['orders', 'impatient', 'persistent', 'canary', 'shop/orders', 'shop/products']) {
    t.match(ofSidecar, new RegExp(`^jingwei_edge_requests_total\\{route="${route}",[^\n]* [1-9]`, 'm'), route)
  }
  const gateway = models.all.find(({ name }) => name === '2 with a sidecar')!
  t.match(ofSidecar, /^jingwei_mesh_retries_total\{[^\n]* [1-9]/m)
  t.notMatch(await metricsOf(gateway.adminUrl), /^jingwei_mesh_retries_total\{[^\n]* [1-9]/m)
})

t.test('a service of the mesh reaches the merged gateway by its sidecar; its direction is told apart', async (t) => {
  seen = []
  t.match(await send(models.throughMesh, '/api/orders'), { status: 200 })
  const merged = models.all.find(({ name }) => name === '3 merged')!
  const metrics = await metricsOf(merged.adminUrl)
  const count = 'jingwei_edge_requests_total\\{route="orders",method="GET",status="200"'
  t.match(metrics, new RegExp(`^${count},direction="north-south"\\} [1-9]`, 'm'))
  t.match(metrics, new RegExp(`^${count},direction="east-west"\\} [1-9]`, 'm'))
})

t.test('nothing has ended by itself', async (t) => {
  t.strictSame(events, [])
})
