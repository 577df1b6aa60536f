// slow: takes about 4 s
/** Hedged attempts: their time, their conditions, the winner, and the end of the loser. */
import type { ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { MeshPolicy } from '../../../config/schema.ts'
import { systemTimers } from '../../../plugins/clock.ts'
import type { HedgeContext } from '../../../plugins/mesh/concerns/hedge/attempts.ts'
import { Hedge } from '../../../plugins/mesh/concerns/hedge/attempts.ts'
import { Latencies } from '../../../plugins/mesh/concerns/hedge/latencies.ts'
import type { HedgeOptions } from '../../../plugins/mesh/concerns/hedge/options.ts'
import { Call } from '../../../plugins/mesh/core/call.ts'
import type { DispatchOptions } from '../../../plugins/mesh/core/types.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startGateway } from '../../helpers/gateway.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const hedged = (more: Partial<HedgeOptions> = {}): HedgeOptions => ({
  after: 20,
  attempts: 1,
  methods: ['GET', 'HEAD', 'OPTIONS'],
  ...more
})

/** A service that holds its responses until the test sends them. */
async function holdingService(t: Parameters<typeof upstream>[0], name: string) {
  const responses: ServerResponse[] = []
  const server = await upstream(t, name, (_request, response) => void responses.push(response))
  return { ...server, responses }
}

/** Two instances of which the first is slow. */
async function pair(t: Parameters<typeof upstream>[0], policy: Partial<MeshPolicy> = {}) {
  const slow = await holdingService(t, 'slow')
  const fast = await upstream(t, 'fast')
  const stub = meterStub()
  const mesh = meshOf(t, [service('orders', [slow.url, fast.url], { hedge: hedged(), ...policy })], stub)
  const active = () => mesh.status()[0]!.instances.map((instance) => instance.active)
  const count = (name: string) => stub.counts[`jingwei_mesh_${name}`] ?? 0
  return { slow, fast, mesh, active, count }
}

t.test('the first response wins, and the other attempt is aborted', async (t) => {
  const { slow, mesh, active, count } = await pair(t)
  const { body, context } = await mesh.request(get)
  t.equal(await body.text(), 'fast')
  t.notOk(context === undefined)
  await eventually(
    () => slow.sockets.size === 0 && active().every((number) => number === 0),
    'the connection of the slow attempt to close'
  )
  t.equal(count('hedges_total{orders,won}'), 1)
  t.equal(count('hedges_total{orders,lost}'), 0)
  t.equal(count('attempts_total{orders,hedged}'), 1)
  t.equal(count('attempts_total{orders,success}'), 1)
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
})

t.test('the record has the winning instance and both attempts', async (t) => {
  const { fast, mesh } = await pair(t)
  const recorder = new Recorder()
  let call: { instance: string; attempts: number; sent: boolean } | undefined
  const noted = recorder.onRequestStart.bind(recorder)
  recorder.onRequestStart = (controller, context?: unknown) => {
    call = (context as { call: typeof call }).call
    noted(controller)
  }
  mesh.dispatch(get, recorder)
  await recorder.done
  t.strictSame(recorder.events, ['start', '200', 'data', 'end'])
  t.match(call, { instance: fast.url, attempts: 2, sent: true })
})

t.test('the first attempt can win after the hedge', async (t) => {
  const slow = await holdingService(t, 'slow')
  const slower = await holdingService(t, 'slower')
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [slow.url, slower.url], { hedge: hedged() })], { meter })
  const response = mesh.request(get)
  await eventually(() => slower.responses.length === 1, 'the hedged attempt')
  slow.responses[0]!.end('slow')
  t.equal(await (await response).body.text(), 'slow')
  await eventually(() => slower.sockets.size === 0, 'the end of the hedge')
  t.equal(counts['jingwei_mesh_hedges_total{orders,lost}'], 1)
  t.equal(counts['jingwei_mesh_hedges_total{orders,won}'], undefined)
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
})

t.test('no hedge is sent for another method, a fast response, a single instance or a streaming body', async (t) => {
  const slow = await holdingService(t, 'slow')
  const fast = await upstream(t, 'fast')
  const hedge = hedged({ methods: ['GET', 'PUT'] })
  const mesh = meshOf(t, [
    service('orders', [slow.url, fast.url], { hedge }),
    service('single', [slow.url], { hedge }),
    service('quick', [fast.url, slow.url], { hedge: hedged({ after: 5000 }) })
  ])
  const unhedged = async (options: object) => {
    const before = fast.requests.length
    const response = mesh.request({ ...get, ...options } as never)
    await eventually(() => slow.responses.length === 1, 'the request at the slow instance')
    await sleep(60)
    t.equal(fast.requests.length, before)
    slow.responses.pop()!.end('slow')
    t.equal(await (await response).body.text(), 'slow')
  }
  await unhedged({ method: 'POST', body: 'x' })
  await unhedged({ origin: 'http://single.mesh' })
  await (await mesh.request({ ...get, method: 'POST' })).body.dump()
  const stream = new Readable({ read() {} })
  stream.push('x')
  await unhedged({ method: 'PUT', body: stream })
  t.equal(await (await mesh.request({ ...get, origin: 'http://quick.mesh' })).body.text(), 'fast')
})

t.test('a body is sent again if it is in memory', async (t) => {
  const slow = await holdingService(t, 'slow')
  const fast = await upstream(t, 'fast', (request, response) => request.pipe(response))
  const policy = { hedge: hedged({ methods: ['PUT'] }) }
  const mesh = meshOf(t, [service('orders', [slow.url, fast.url], policy)])
  for (const body of ['in memory', Buffer.from('in memory'), Readable.from(['in ', 'memory'])]) {
    const response = await mesh.request({ ...get, method: 'PUT', body })
    t.equal(await response.body.text(), 'in memory')
  }
})

t.test('after a failed attempt, the other attempt decides, be it a 5xx or no response', async (t) => {
  const { slow, mesh, count } = await pair(t, { hedge: hedged({ after: 20 }) })
  for (const fail of [
    (response: ServerResponse) => void response.writeHead(503).end('busy'),
    (response: ServerResponse) => void response.socket!.resetAndDestroy()
  ]) {
    const slower = await holdingService(t, 'slower')
    const two = meshOf(t, [service('orders', [slow.url, slower.url], { hedge: hedged() })])
    const recorder = new Recorder()
    two.dispatch(get, recorder)
    await eventually(() => slower.responses.length === 1, 'the hedged attempt')
    fail(slow.responses.pop()!)
    await sleep(50)
    t.strictSame(recorder.events, ['start'])
    slower.responses[0]!.end('slower')
    await recorder.done
    t.strictSame(recorder.events, ['start', '200', 'data', 'end'])
    t.equal(recorder.body, 'slower')
  }
  t.equal(await (await mesh.request(get)).body.text(), 'fast')
  t.equal(count('hedges_total{orders,won}'), 1)
})

t.test('if both attempts fail, the last response is forwarded, or else the failure', async (t) => {
  const [one, two] = [await holdingService(t, 'one'), await holdingService(t, 'two')]
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [one.url, two.url], { hedge: hedged() })], { meter })
  const ask = async () => {
    const recorder = new Recorder()
    mesh.dispatch(get, recorder)
    await eventually(() => one.responses.length === 1 && two.responses.length === 1, 'both')
    return { recorder, first: one.responses.pop()!, second: two.responses.pop()! }
  }
  const busy = (response: ServerResponse, text: string) => response.writeHead(503).end(text)
  const large = 'x'.repeat(300_000)
  const a = await ask()
  busy(a.first, large)
  await sleep(50)
  a.second.socket!.resetAndDestroy()
  await a.recorder.done
  t.strictSame(a.recorder.events, ['start', '503', 'data', 'end'])
  t.ok(a.recorder.body === large)

  const b = await ask()
  busy(b.first, 'first')
  await sleep(50)
  busy(b.second, 'second')
  await b.recorder.done
  t.equal(b.recorder.body, 'second')

  const c = await ask()
  c.first.socket!.resetAndDestroy()
  await sleep(50)
  c.second.socket!.resetAndDestroy()
  await c.recorder.done
  t.strictSame(c.recorder.events, ['start', 'error'])
  t.equal(c.recorder.error?.code, 'JW_UPSTREAM_RESET')
  t.equal(counts['jingwei_mesh_hedges_total{orders,lost}'], 2)
  t.equal(counts['jingwei_mesh_hedges_total{orders,won}'], 1, 'the 503 of the hedged attempt is forwarded')
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
})

t.test('an incomplete failed response is not forwarded', async (t) => {
  const [one, two] = [await holdingService(t, 'one'), await holdingService(t, 'two')]
  const mesh = meshOf(t, [service('orders', [one.url, two.url], { hedge: hedged() })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  await eventually(() => two.responses.length === 1, 'the hedged attempt')
  one.responses[0]!.writeHead(503, { 'content-length': 100 }).write('part')
  await sleep(50)
  one.responses[0]!.socket!.resetAndDestroy()
  await sleep(50)
  t.strictSame(recorder.events, ['start'])
  two.responses[0]!.end('two')
  await recorder.done
  t.equal(recorder.body, 'two')
})

t.test('if both fail, the call is retried elsewhere', async (t) => {
  const [one, two] = [await holdingService(t, 'one'), await holdingService(t, 'two')]
  const good = await upstream(t, 'good')
  const retry = { ...retryOptions, attempts: 1, on: [503] as (typeof retryOptions)['on'] }
  const mesh = meshOf(t, [service('orders', [one.url, good.url, two.url], { hedge: hedged(), retry })])
  const response = mesh.request(get)
  await eventually(() => two.responses.length === 1, 'the hedged attempt')
  one.responses[0]!.writeHead(503).end('busy')
  two.responses[0]!.writeHead(503).end('busy')
  t.equal(await (await response).body.text(), 'good')
  await eventually(() => mesh.status()[0]!.instances.every(({ active }) => active === 0), 'no attempt in flight')
})

t.test('a refused connection goes straight to the retry', async (t) => {
  const good = await upstream(t, 'good')
  const policy = { hedge: hedged({ after: 10_000 }), retry: retryOptions }
  const mesh = meshOf(t, [service('orders', [await refused(), good.url], policy)])
  t.equal(await (await mesh.request(get)).body.text(), 'good')
  const post = await mesh.request({ ...get, method: 'POST', body: 'x' })
  t.equal(await post.body.text(), 'good')
})

t.test('abort and deadline end both attempts', async (t) => {
  const [one, two] = [await holdingService(t, 'one'), await holdingService(t, 'two')]
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [one.url, two.url], { hedge: hedged(), timeout: 300 })], { meter })
  const idle = () => one.sockets.size === 0 && two.sockets.size === 0
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  await eventually(() => two.responses.length === 1, 'the hedged attempt')
  recorder.controller.abort(new Error('left'))
  t.strictSame(recorder.events, ['start', 'error'])
  t.equal(recorder.error?.message, 'left')
  await eventually(idle, 'all connections to close')
  t.equal(counts['jingwei_mesh_attempts_total{orders,aborted}'], 2)

  await t.rejects(mesh.request(get), { code: 'JW_CALL_TIMEOUT' })
  await eventually(idle, 'all connections to close')
  t.equal(counts['jingwei_mesh_attempts_total{orders,timeout}'], 2)

  const before = new Recorder()
  mesh.dispatch({ ...get, mesh: { timeout: 10_000 } }, before)
  await eventually(() => one.sockets.size > 0 || two.sockets.size > 0, 'the first attempt')
  before.controller.abort(new Error('left early'))
  await sleep(60)
  t.ok(idle(), 'a caller that has left gets no hedge')
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
  t.equal(mesh.status()[0]!.active, 0)
})

t.test('pause and resume apply to the winner, also a pause before the response', async (t) => {
  const large = 'x'.repeat(3_000_000)
  const [one, two] = [await holdingService(t, 'one'), await holdingService(t, 'two')]
  const mesh = meshOf(t, [service('orders', [one.url, two.url], { hedge: hedged() })])
  const recorder = new Recorder()
  mesh.dispatch(get, recorder)
  recorder.controller.pause()
  await eventually(() => two.responses.length === 1, 'the hedged attempt')
  two.responses[0]!.end(large)
  await eventually(() => recorder.status === 200, 'the header section of the response')
  await sleep(50)
  t.ok(recorder.body.length < large.length)
  recorder.controller.resume()
  await recorder.done
  t.equal(recorder.body.length, large.length)
})

t.test('hedges need the retry budget and a slot of maxRetries', async (t) => {
  const budgeted = async (policy: Partial<MeshPolicy>, now: () => number) => {
    const slow = await holdingService(t, 'slow')
    const fast = await upstream(t, 'fast')
    const { meter, counts } = meterStub()
    const hedge = hedged({ after: 5 })
    const mesh = meshOf(t, [service('orders', [slow.url, fast.url], { hedge, ...policy })], { meter, now })
    return { slow, fast, counts, mesh }
  }
  const none = await budgeted({}, () => 0)
  const overflows = 'jingwei_mesh_retry_overflows_total{orders}'
  for (let i = 0; none.counts[overflows] === undefined && i < 200; i++) {
    const recorder = new Recorder()
    none.mesh.dispatch(get, recorder)
    await Promise.race([recorder.done, eventually(() => none.counts[overflows] !== undefined, 'the overflow')])
  }
  const won = none.counts['jingwei_mesh_hedges_total{orders,won}']!
  t.ok(won >= 100 && won <= 150, `a hundred, and a fifth of the calls: ${won}`)

  const circuitBreaker = {
    mode: 'enforce', maxConnections: 100, maxPendingRequests: 100, maxRetries: 1, errorRatio: false, slowRatio: false,
    perInstance: { maxConnections: 100, maxPendingRequests: 100 },
    slowAfter: 5000, minRequests: 20, window: 10_000, openFor: 10_000, rampFor: 10_000, consecutiveSuccesses: 1,
    failureStatuses: ['500-599'] as string[]
  } as const // biome-ignore format: a table
  const one = await holdingService(t, 'one')
  const two = await holdingService(t, 'two')
  const { meter, counts } = meterStub()
  const mesh = meshOf(t, [service('orders', [one.url, two.url], { hedge: hedged(), circuitBreaker })], { meter })
  const responses = [mesh.request(get), mesh.request(get)]
  await eventually(() => counts[overflows] === 1, 'the refusal of the second hedge')
  await eventually(() => one.responses.length + two.responses.length === 3, 'three attempts')
  for (const response of [...one.responses, ...two.responses]) response.end('done')
  for (const { body } of await Promise.all(responses)) t.equal(await body.text(), 'done')
  t.match(mesh.status()[0]!.concerns.retries, { active: 0 })
})

t.test('a call can have several hedges', async (t) => {
  const slow = [await holdingService(t, 'a'), await holdingService(t, 'b'), await holdingService(t, 'c')]
  const fast = await upstream(t, 'fast')
  const { meter, counts } = meterStub()
  const hedge = hedged({ attempts: 3, after: 10 })
  const mesh = meshOf(t, [service('orders', [...slow.map(({ url }) => url), fast.url], { hedge })], { meter })
  t.equal(await (await mesh.request(get)).body.text(), 'fast')
  t.equal(counts['jingwei_mesh_hedges_total{orders,lost}'], 2)
  t.equal(counts['jingwei_mesh_hedges_total{orders,won}'], 1)
  await eventually(
    () => slow.every(({ sockets }) => sockets.size === 0),
    'the connections of the slow attempts to close'
  )
})

t.test('a hedge is sent at a percentile of the latency, once there are enough measurements', async (t) => {
  const { slow, fast, mesh } = await pair(t, {
    hedge: { percentile: 95, attempts: 1, methods: ['GET'] },
    balance: 'round-robin'
  })
  let responds = true
  slow.server.on('request', (_request, response: ServerResponse) => responds && response.end('slow'))
  for (let i = 0; i < 50; i++) await (await mesh.request(get)).body.dump()
  t.equal(slow.responses.length, 25, 'no call is hedged')
  t.equal(fast.requests.length, 25)
  responds = false
  t.equal(await (await mesh.request(get)).body.text(), 'fast')
  t.match(mesh.status()[0]!.concerns.hedge, { answers: 52 })
})

t.test('percentiles of the latency are estimated', async (t) => {
  const latencies = new Latencies()
  for (let i = 1; i < 50; i++) latencies.add(i)
  t.equal(latencies.percentile(95), null)
  latencies.add(50)
  t.strictSame(
    [50, 90, 99.9].map((percent) => latencies.percentile(percent)),
    [25, 45, 50]
  )
  for (let i = 0; i < 1000; i++) latencies.add(1000)
  t.equal(latencies.percentile(50), 1000, 'the percentile is that of the latest latencies')
})

t.test('the instance of the aborted attempt is not blamed', async (t) => {
  const outlierDetection = {
    mode: 'enforce', consecutive5xx: 1, consecutiveGatewayFailures: 1, interval: 1000, baseEjection: 30_000,
    maxEjection: 300_000, maxEjectionPercent: 1, successRate: false, failurePercentage: false
  } as const // biome-ignore format: a table
  const { slow, mesh } = await pair(t, { outlierDetection })
  for (let i = 0; i < 4; i++) t.equal(await (await mesh.request(get)).body.text(), 'fast')
  await eventually(() => slow.sockets.size === 0, 'the connection of the slow attempt to close')
  t.ok(mesh.status()[0]!.instances.every(({ available }) => available))
})

t.test('a hedge works through the gateway', async (t) => {
  const slow = await holdingService(t, 'slow')
  const fast = await upstream(t, 'fast')
  const gateway = await startGateway(
    {
      mesh: { balance: 'round-robin', hedge: { after: '20ms' } },
      services: { orders: { instances: [slow.url, fast.url] } },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  for (let i = 0; i < 3; i++) t.equal(await (await fetch(gateway.url)).text(), 'fast')
  await eventually(() => slow.sockets.size === 0, 'the connections of the slow attempts to close')
  const lines = gateway.log.filter(({ attempts }) => attempts !== undefined)
  t.ok(lines.every((line) => line.attempts === 1 || (line.attempts === 2 && line.instance === fast.url)))
})

t.test('a call that ends before its hedged attempt begins sends none', async (t) => {
  const orders = meshOf(t, [service('orders', [])]).service('orders')
  const call = new Call(orders, new Recorder(), 0)
  call.abort(new Error('left'))
  const attempt = new Recorder()
  const dispatch = () => t.fail('an attempt')
  const context = { service: orders, attempts: 1, afterMs: () => 1, now: () => 0, timers: systemTimers } as HedgeContext
  new Hedge(attempt, { ...get, call } as DispatchOptions, dispatch, context).begin()
  t.strictSame([attempt.events, attempt.error?.message], [['error'], 'left'])
})
