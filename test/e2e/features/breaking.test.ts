/** Every key of `mesh.circuitBreaker`, `adaptiveConcurrency` and `limit`. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Client } from '../../helpers/gateway.ts'
import { parse } from '../../helpers/gateway.ts'
import { gatewayOf, instances, urls } from './support.ts'

async function gatewayTo(t: Test, mesh: string, names = ['a']) {
  const some = await instances(t, ...names)
  const world = await gatewayOf(
    t,
    `
services: { orders: { instances: ${urls(some)}, mesh: { ${mesh} } } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  const held = () => some.flatMap((each) => each.held)
  const concern = async (name: string) => (await world.service('orders')).concerns[name]!
  return { some, held, concern, ...world }
}

const series = (name: string, ...labels: string[]) => `jingwei_mesh_${name}{service="orders"${labels.join('')}}`
const cap = (name: string) => series('overflows_total', `,cap="${name}"`)
const overloaded = { status: 503, code: 'JW_OVERLOADED', headers: { 'retry-after': '1' } }

t.test('errorRatio, minRequests, window, openFor, rampFor: open, half-open, closed again', async (t) => {
  const options = 'minRequests: 4, errorRatio: 50%, window: 1m, openFor: 1500ms, rampFor: 100ms'
  const world = await gatewayTo(t, `circuitBreaker: { ${options} }, retry: false`)
  t.strictSame(await world.spread(2, '/'), { a: 2 })
  t.strictSame(await world.spread(2, '/?status=500'), { 500: 2 })
  const refused = await world.send('/')
  t.match(refused, { status: 503, code: 'JW_CIRCUIT_OPEN' })
  t.match(refused.headers, { 'retry-after': /^[12]$/, 'proxy-status': 'jingwei; error=destination_unavailable' })
  t.match(await world.send('/', [], 'HEAD'), { status: 503, body: '', headers: { 'retry-after': /^[12]$/ } })
  t.equal(await world.metric(series('circuit_state')), 2)
  t.equal(await world.metric(series('circuit_refusals_total')), 2)
  t.match(await world.concern('circuit-breaker'), { state: 'open', mode: 'enforce' })
  t.equal(world.some[0]!.seen.length, 4)
  t.ok((await world.chain('/')).includes('circuit-breaker'))
  t.equal((await world.explain('/')).mesh[0]!.service, 'orders')

  while ((await world.metric(series('circuit_state'))) !== 0) {
    await world.send('/')
    await sleep(20)
  }
  t.equal(await world.metric(series('circuit_transitions_total', ',to="half-open"')), 1)
  t.strictSame(await world.spread(3, '/'), { a: 3 })
  t.match(
    world.log.filter(({ msg }) => /^circuit /.test(String(msg))),
    ['open', 'half-open', 'closed'].map((state) => ({ msg: `circuit of orders is ${state}`, service: 'orders' }))
  )
})

t.test(
  'consecutiveFailures, failureStatuses, consecutiveSuccesses, maxOpenFor: failures in a row open it',
  async (t) => {
    const row = 'consecutiveFailures: 2, failureStatuses: [429], errorRatio: false, slowRatio: false'
    const options = `${row}, consecutiveSuccesses: 2, openFor: 100ms, maxOpenFor: 1h, rampFor: 0`
    const world = await gatewayTo(t, `circuitBreaker: { ${options} }, retry: false`)
    const state = () => world.metric(series('circuit_state'))
    t.strictSame(await world.spread(3, '/?status=500'), { 500: 3 }, 'no failure: another status')
    t.strictSame(await world.spread(1, '/?status=429'), { 429: 1 })
    t.strictSame(await world.spread(1, '/'), { a: 1 }, 'a success between')
    t.strictSame(await world.spread(1, '/?status=429'), { 429: 1 })
    t.equal(await state(), 0)
    t.strictSame(await world.spread(1, '/?status=429'), { 429: 1 })
    t.equal(await state(), 2)
    t.match(await world.send('/'), { status: 503, code: 'JW_CIRCUIT_OPEN' })

    while ((await world.send('/')).status !== 200) await sleep(20)
    t.not(await state(), 0, 'one of two successes')
    t.equal((await world.send('/')).status, 200)
    t.equal(await state(), 0)
  }
)

t.test(
  'slowRatio and slowAfter; errorRatio: false; slowAfter ends at the header section, so a long stream is not slow',
  async (t) => {
    const options = 'errorRatio: false, slowRatio: 60%, slowAfter: 300ms, minRequests: 3, openFor: 1h'
    const world = await gatewayTo(t, `circuitBreaker: { ${options} }, retry: false`)
    world.some[0]!.respond = ({ url }, response) => {
      if (url !== '/stream') return false
      response.write('head')
      setTimeout(() => response.end(), 400)
      return true
    }
    t.strictSame(await world.spread(3, '/?status=500'), { 500: 3 })
    for (let i = 0; i < 3; i++) t.equal((await world.send('/stream')).status, 200)
    for (let sent = 0; (await world.send('/?delay=400')).status === 200; sent++)
      if (sent > 12) throw new Error('closed')
    t.equal(await world.metric(series('circuit_state')), 2)
    t.ok(Number((await world.send('/')).headers['retry-after']) > 3000)
  }
)

t.test('retries that succeed do not open the circuit', async (t) => {
  const mesh = 'circuitBreaker: { minRequests: 3 }, retry: { on: [503], budget: 100%, backoff: { base: 0s } }'
  const world = await gatewayTo(t, mesh, ['a', 'b'])
  t.strictSame(await world.spread(12, '/?status=503&at=a'), { b: 12 })
  t.equal(await world.metric(series('circuit_state')), 0)
})

t.test('maxRequests, maxConnections, maxPendingRequests: refused at once, or queued', async (t) => {
  const world = await gatewayTo(t, 'circuitBreaker: { maxConnections: 1, maxPendingRequests: 2, maxRequests: 2 }')
  const clients = [world.begin('/?hold&1'), world.begin('/?hold&2')]
  await world.until(series('pending_requests'), 1)
  t.match(await world.send('/3'), overloaded)
  t.equal(await world.metric(cap('maxRequests')), 1)
  t.match(await world.concern('caps'), { active: 1, pending: 1, maxConnections: 1, maxRequests: 2 })
  clients[1]!.socket.destroy()
  await world.until(series('pending_requests'), 0)
  await world.until('jingwei_edge_requests_total{route="orders",method="GET",status="499",direction="north-south"}', 1)
  const next = world.begin('/?hold&4')
  await world.until(series('pending_requests'), 1)
  world.held()[0]!.end()
  await eventually(() => world.held().length === 2)
  world.held()[1]!.end()
  t.equal(parse((await next.closed).text).status, 200, 'the next call takes the queue place of the disconnected client')
  t.notOk(world.some[0]!.seen.some(({ url }) => url.endsWith('2')))
  await world.idle()
})

t.test('a WebSocket counts against maxConnections as long as it is open', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const world = await gatewayOf(
    t,
    `
mesh: { circuitBreaker: { maxConnections: 1, maxPendingRequests: 1 } }
services: { orders: { instances: [${service.url}] } }
routes: [{ name: orders, match: { path: / }, service: orders }]
`
  )
  const client = world.begin('', handshake('/ws'))
  await client.until('HTTP/1.1 101')
  t.equal((await world.service('orders')).concerns.caps!.active, 1)
  const waits = world.begin('/')
  await world.until(series('pending_requests'), 1)
  t.match(await world.send('/'), overloaded)
  client.socket.destroy()
  t.match((await waits.closed).text, /^HTTP\/1\.1 200/)
  await world.idle()
})

t.test('perInstance: another instance first; a 503 when all are full', async (t) => {
  const perInstance = 'perInstance: { maxConnections: 1, maxPendingRequests: 1, maxRequests: 1 }'
  const world = await gatewayTo(t, `balance: random, circuitBreaker: { ${perInstance} }`, ['a', 'b'])
  const clients = [world.begin('/?hold'), world.begin('/?hold')]
  await eventually(() => world.some.every(({ held }) => held.length === 1))
  t.match(await world.send('/'), overloaded)
  t.equal(await world.metric(cap('instance')), 1)
  for (const response of world.held()) response.end()
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
})

t.test('maxRetries: limit of concurrent retries', async (t) => {
  const mesh = 'circuitBreaker: { maxRetries: 1, errorRatio: false }, retry: { on: [503], budget: 100%, attempts: 1 }'
  const world = await gatewayTo(t, mesh, ['a', 'b'])
  const [a, b] = world.some
  a!.respond = (_request, response) => Boolean(response.writeHead(503).end())
  b!.respond = (_request, response) => b!.held.push(response) > 0
  const clients: Client[] = []
  while (a!.seen.length < 3) {
    clients.push(world.begin('/'))
    await sleep(30)
  }
  await eventually(() => clients.some(({ received }) => received().startsWith('HTTP/1.1 503')))
  t.ok((await world.metric(series('retry_overflows_total')))! >= 1)
  t.match(await world.concern('retries'), { active: 1, maxRetries: 1 })
  for (const response of world.held()) response.end()
  await Promise.all(clients.map(({ closed }) => closed))
  await world.idle()
})

t.test('limit: rate, per, burst, queue, queueTimeout; a client that disconnects frees its queue place', async (t) => {
  const options = 'rate: 1, per: 2s, burst: 1, queue: 1, queueTimeout: 5s'
  const world = await gatewayTo(t, `limit: { ${options} }`)
  t.equal((await world.send('/1')).status, 200)
  const waits = world.begin('/2')
  await eventually(() => waits.socket.bytesWritten > 0)
  while ((await world.concern('rate-limit')).pending !== 1) await sleep(5)
  const refused = await world.send('/3')
  t.match(refused, { status: 503, code: 'JW_UPSTREAM_LIMITED', headers: { 'retry-after': /^[234]$/ } })
  waits.socket.destroy()
  await world.until('jingwei_edge_requests_total{route="orders",method="GET",status="499",direction="north-south"}', 1)
  t.equal((await world.concern('rate-limit')).pending, 0)
  t.equal((await world.send('/4')).status, 200, 'the queue place was free')
  t.strictSame(
    world.some[0]!.seen.map(({ url }) => url),
    ['/1', '/4']
  )
  t.equal(await world.metric(series('limited_total', ',outcome="refused"')), 1)
  t.equal(await world.metric(series('limited_total', ',outcome="queued"')), 2)
  t.match(await world.concern('rate-limit'), { mode: 'enforce', rate: 1, perMs: 2000, burst: 1 })
  t.ok((await world.chain('/')).includes('rate-limit'))
})

t.test('limit: a call that would wait longer than queueTimeout is refused at once, with Retry-After', async (t) => {
  const world = await gatewayTo(t, 'limit: { rate: 1, per: 20s, queueTimeout: 1s }')
  t.strictSame(await world.spread(1, '/'), { a: 1 })
  const begun = performance.now()
  const refused = await world.send('/')
  t.ok(performance.now() - begun < 900)
  t.ok(Number(refused.headers['retry-after']) > 15, `${refused.headers['retry-after']} s`)
})

t.test('adaptiveConcurrency: initialLimit; minLimit; fast responses raise it to maxLimit', async (t) => {
  const options = 'initialLimit: 2, minLimit: 1, maxLimit: 6, window: 100ms, tolerance: 2'
  const world = await gatewayTo(t, `adaptiveConcurrency: { ${options} }`)
  const clients = [world.begin('/?hold'), world.begin('/?hold')]
  await eventually(() => world.held().length === 2)
  t.match(await world.send('/'), overloaded)
  t.equal(await world.metric(cap('adaptive')), 1)
  for (const response of world.held()) response.end()
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
  while ((await world.metric(series('concurrency_limit')))! < 4) {
    await Promise.all([1, 2, 3].map(() => world.send('/')))
  }
  t.match(await world.concern('adaptive-concurrency'), { mode: 'enforce', inFlight: 0 })
  t.ok((await world.chain('/')).includes('adaptive-concurrency'))
})

t.test('mode: shadow for all of them: no call is refused, every refusal is counted', async (t) => {
  const mesh = `
    circuitBreaker: { mode: shadow, minRequests: 2, maxConnections: 1, maxPendingRequests: 1, maxRequests: 1 },
    adaptiveConcurrency: { mode: shadow, initialLimit: 1, minLimit: 1 },
    limit: { mode: shadow, rate: 1, per: 1h, queue: 1, queueTimeout: 1s }, retry: false`
  const world = await gatewayTo(t, mesh)
  t.strictSame(await world.spread(3, '/?status=500'), { 500: 3 })
  const clients = [1, 2, 3].map(() => world.begin('/?hold'))
  await eventually(() => world.held().length === 3)
  for (const response of world.held()) response.end()
  for (const client of clients) t.match((await client.closed).text, /^HTTP\/1\.1 200/)
  for (const concern of ['circuit-breaker', 'adaptive-concurrency', 'rate-limit']) {
    t.ok((await world.metric(series('shadowed_total', `,concern="${concern}"`)))! >= 1, concern)
  }
  const shadowed = (await world.admin.inject('/metrics')).body.match(/^jingwei_mesh_shadowed_total.*$/gm)
  t.ok(shadowed!.length >= 4, shadowed!.join('\n'))
})
