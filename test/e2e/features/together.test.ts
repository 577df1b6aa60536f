/** Common combinations: retry, hedge, collapse, fallback and breaker on one route, with streams and large bodies. */
import { createHash, randomBytes } from 'node:crypto'
import type { ServerResponse } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { echo, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Client } from '../../helpers/gateway.ts'
import { parse, raw } from '../../helpers/gateway.ts'
import { gatewayOf, headerSection, instances, urls } from './support.ts'

/** Configuration with all of these concerns at once. */
const everything = (shadow: string) => `
mesh:
  timeout: 10s
  retry: { on: [reset, connect-failure, 5xx], backoff: { base: 0s }, budget: 100%, methods: [GET, HEAD, OPTIONS, PUT] }
  hedge: { after: 1s }
  collapse: true
  mirror: { service: shadow }
  circuitBreaker: { minRequests: 1000, maxRequests: 100 }
  attemptTimeout: 5s
  adaptiveConcurrency: { initialLimit: 50 }
  limit: { rate: 1000 }
  outlierDetection: { maxEjectionPercent: 0% }
  healthCheck: { type: tcp, interval: 1s }
  fault: { abort: { status: 500, percent: 0% } }
  fallback:
    - { on: [5xx, reset, timeout], service: backup }
    - { on: [5xx, reset, timeout, circuit-open], stale: {} }
    - { on: [5xx, reset, timeout, circuit-open], status: 200, body: sorry }
services:
  backup: { instances: ["http://127.0.0.1:1"], mesh: { retry: false } }
  shadow: { instances: [${shadow}], mesh: { collapse: false, fallback: false } }
`

async function gatewayWithAll(t: Test) {
  const [a, b, shadow] = await instances(t, 'a', 'b', 'shadow')
  const world = await gatewayOf(
    t,
    `${everything(shadow!.url)}
  orders: { instances: [${a!.url}, ${b!.url}], mesh: { balance: { policy: round-robin } } }
routes:
  - { name: orders, match: { path: / }, service: orders }
  - name: bare
    match: { path: /bare }
    service: orders
    mesh: { retry: false, hedge: false, collapse: false, fallback: false, mirror: false, fault: false, timeout: 1s, attemptTimeout: 900ms }
`
  )
  return { some: [a!, b!], a: a!, b: b!, shadow: shadow!, ...world }
}

t.test('all concerns: a response is unchanged; a failed call is retried, hedged or gets a fallback', async (t) => {
  const world = await gatewayWithAll(t)
  const { a, b } = world
  t.strictSame(await world.chain('/'), [
    'telemetry', 'collapse', 'fallback', 'deadline', 'call', 'circuit-breaker', 'mirror', 'replay', 'retry', 'hedge',
    'adaptive-concurrency', 'caps', 'rate-limit', 'select', 'attempt-telemetry', 'outlier-detection',
    'attempt-timeout', 'fault'
  ]) // biome-ignore format: in order
  const cached = '/?header=cache-control:max-age=60&header=etag:"v1"&header=age:7'
  const first = await world.send(cached)
  t.match(first, { status: 200, headers: { 'cache-control': 'max-age=60', etag: '"v1"', age: '7' } })
  t.equal(first.headers['x-jingwei-fallback'], undefined)
  t.strictSame(await world.spread(4, '/?a.status=500'), { b: 4 }, 'retried')
  t.strictSame(await world.spread(2, '/?a.delay=6000'), { b: 2 }, 'hedged')
  t.strictSame(await world.spread(4, '/?a.reset'), { b: 4 })

  for (const each of world.some) each.respond = (_request, response) => Boolean(response.destroy())
  const stale = await world.send(cached)
  t.match(stale, { status: 200, body: first.body, headers: { 'x-jingwei-fallback': 'stale', etag: '"v1"' } })
  t.ok(Number(stale.headers.age) >= 7, 'Age continues from the value of the service')
  t.match(await world.send('/new'), { status: 200, body: 'sorry', headers: { 'x-jingwei-fallback': 'static' } })
  t.match(await world.send('/new', [], 'HEAD'), { status: 200, body: '' })
  t.match(await world.send('/new', [], 'OPTIONS'), { status: 200, body: 'sorry' })
  t.match(await world.send('/bare'), { status: 502, code: 'JW_UPSTREAM_RESET' }, 'no fallback on this route')
  t.strictSame(await world.chain('/bare'), [
    'telemetry', 'deadline', 'call', 'circuit-breaker', 'adaptive-concurrency', 'caps', 'rate-limit', 'select',
    'attempt-telemetry', 'outlier-detection', 'attempt-timeout'
  ]) // biome-ignore format: in order
  for (const each of world.some) each.respond = () => false

  const before = a.seen.length + b.seen.length
  const clients = [1, 2, 3].map(() => world.begin('/?delay=100&a.status=500&shared'))
  const responses = await Promise.all(clients.map(async ({ closed }) => parse((await closed).text)))
  t.ok(responses.every(({ status, headers }) => status === 200 && headers['x-instance'] === 'b'))
  t.ok(a.seen.length + b.seen.length - before <= 3, 'shared, and retried at most once')
  await world.idle()
  t.equal(await world.metric('jingwei_mesh_circuit_state{service="orders"}'), 0)
})

t.test('server-sent events: each is forwarded at once, with all concerns', async (t) => {
  const world = await gatewayWithAll(t)
  const streams: ServerResponse[] = []
  for (const each of world.some) {
    each.respond = (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' }).flushHeaders()
      return streams.push(response) > 0
    }
  }
  const clients: Client[] = []
  for (const target of ['/events', '/events', '/bare']) {
    clients.push(world.begin(target))
    await clients.at(-1)!.until('\r\n\r\n')
  }
  t.equal(streams.length, 3, 'no stream is shared')
  for (const event of ['one', 'two', 'three']) {
    for (const stream of streams) stream.write(`data: ${event}\n\n`)
    for (const client of clients) await client.until(`data: ${event}\n\n`)
  }
  t.match(
    (await world.service('orders')).instances.reduce((sum, { active }) => sum + active, 0),
    3
  )
  clients[0]!.socket.destroy()
  await eventually(() => world.some.some(({ aborted }) => aborted === 1))
  for (const stream of streams) stream.end()
  for (const client of clients.slice(1)) t.match((await client.closed).text, /0\r\n\r\n$/)
  await world.idle()
})

t.test(
  'a 5 MB upload, larger than the replay buffer, arrives whole; Content-Length, chunked, idempotency key',
  async (t) => {
    const world = await gatewayWithAll(t)
    const body = randomBytes(5 * 1024 * 1024)
    const digest = createHash('sha256').update(body).digest('hex')
    const inChunks = Buffer.concat([Buffer.from(`${body.length.toString(16)}\r\n`), body, Buffer.from('\r\n0\r\n\r\n')])
    const sized = [`Content-Length: ${body.length}`]
    const requests: [string, string[], Buffer][] = [
      ['PUT', sized, body],
      ['PUT', ['Transfer-Encoding: chunked'], inChunks],
      ['POST', sized, body],
      ['POST', ['Idempotency-Key: "k1"', 'Transfer-Encoding: chunked'], inChunks]
    ]
    for (const [method, headers, bytes] of requests) {
      const what = `${method} ${headers.join()}`
      const before = world.some.map(({ seen }) => seen.length)
      const text = await raw(world.port, Buffer.concat([Buffer.from(headerSection('/upload', headers, method)), bytes]))
      t.equal(parse(text).status, 200, what)
      const got = world.some.flatMap(({ seen }, i) => seen.slice(before[i]))
      t.equal(got.length, 1)
      t.equal(createHash('sha256').update(got[0]!.body).digest('hex'), digest, what)
    }
    const put = Buffer.concat([Buffer.from(headerSection('/?status=503&header=x-why:full', sized, 'PUT')), body])
    const failed = parse(await raw(world.port, put))
    t.match(failed, { status: 200, body: 'sorry' }, 'a body that is only partly buffered is not retried')
    t.equal(world.some.flatMap(({ seen }) => seen.filter(({ url }) => url.includes('full'))).length, 1)
    t.equal(world.shadow.seen.length, 0)
    t.equal(await world.metric('jingwei_mesh_mirrored_total{service="orders",outcome="too-large"}'), 5)
    await world.idle()
  }
)

t.test('a buffered body is retried and mirrored whole', async (t) => {
  const world = await gatewayWithAll(t)
  const text = 'x'.repeat(50_000)
  const request = headerSection('/?a.status=500', [`Content-Length: ${text.length}`], 'PUT') + text
  for (let i = 0; i < 3; i++)
    t.match(parse(await raw(world.port, request)), { status: 200, headers: { 'x-instance': 'b' } })
  await eventually(() => world.shadow.seen.length === 3)
  for (const { seen } of [world.b, world.shadow]) {
    t.ok(seen.every(({ body }) => String(body) === text))
  }
  await world.idle()
})

t.test('early hints, Expect: 100-continue and trailers pass through all concerns', async (t) => {
  const world = await gatewayWithAll(t)
  for (const each of world.some) {
    each.respond = (request, response) => {
      if (request.method === 'GET') response.writeEarlyHints({ link: '</style.css>; rel=preload' })
      response.writeHead(200, { trailer: 'x-sum' })
      response.write('body')
      response.addTrailers({ 'x-sum': '42' })
      response.end()
      return true
    }
  }
  const text = await raw(world.port, headerSection('/', ['TE: trailers']))
  t.match(text, /^HTTP\/1\.1 103 Early Hints\r\nlink: <\/style.css>; rel=preload\r\n\r\nHTTP\/1\.1 200/i)
  t.match(text, /x-sum: 42\r\n\r\n$/)
  const client = world.begin('', headerSection('/', ['Expect: 100-continue', 'Content-Length: 5'], 'PUT'))
  await client.until('HTTP/1.1 100 Continue\r\n\r\n')
  client.send('hello')
  t.match((await client.closed).text, /HTTP\/1\.1 200/)
  t.ok(world.some.some(({ seen }) => String(seen.at(-1)?.body) === 'hello'))
  await world.idle()
})

t.test('a WebSocket passes through all concerns, and is not collapsed, mirrored or hedged', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const [shadow] = await instances(t, 'shadow')
  const world = await gatewayOf(
    t,
    `${everything(shadow!.url)}
  orders: { instances: [${service.url}] }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  const both = await Promise.all([open(world.port), open(world.port)])
  for (const { peer } of both) {
    peer.send(opcodes.text, 'hello')
    t.equal(String((await peer.frame(0)).payload), 'hello')
  }
  t.equal(service.peers.length, 2)
  t.equal(shadow!.seen.length, 0)
  t.equal((await world.service('orders')).instances[0]!.active, 2)
  for (const { peer } of both) {
    peer.close(1000)
    await peer.closed()
  }
  await world.idle()
})

t.test('one instance ejected, one at its connection cap: calls queue, then get the fallback', async (t) => {
  const some = await instances(t, 'a', 'b')
  const world = await gatewayOf(
    t,
    `
mesh: { balance: round-robin }
services:
  orders:
    instances: ${urls(some)}
    mesh:
      outlierDetection: { consecutive5xx: 1, baseEjection: 1h, maxEjection: 1h }
      circuitBreaker: { errorRatio: false, slowRatio: false, perInstance: { maxConnections: 1, maxPendingRequests: 1 } }
      fallback: [{ on: [overloaded], status: 200, headers: { X-Full: "yes" } }]
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  t.notOk((await world.chain('/')).includes('circuit-breaker'), 'no breaker, only the caps')
  await world.spread(2, '/?a.status=500')
  const clients = [world.begin('/?hold'), world.begin('/?hold')]
  await eventually(() => some[1]!.held.length === 1)
  while ((await world.service('orders')).instances.reduce((sum, each) => sum + each.active, 0) < 2) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  t.match(await world.send('/'), { status: 200, headers: { 'x-full': 'yes', 'x-jingwei-fallback': 'static' } })
  t.equal(await world.metric('jingwei_mesh_overflows_total{service="orders",cap="instance"}'), 1)
  for (let i = 0; i < 2; i++) {
    await eventually(() => some[1]!.held.length > i)
    some[1]!.held[i]!.end()
  }
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
  await world.idle()
})
