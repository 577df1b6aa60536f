// slow: takes about 3 s
/** The breaker of a real service: failures that count, refusals, logs and metrics. */
import type { ServerResponse } from 'node:http'
import { PassThrough, Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { upgrade } from 'undici'
import { ServiceConnector } from '../../../plugins/mesh/connect/connector.ts'
import { PooledEndpoint } from '../../../plugins/mesh/connect/endpoint.ts'
import type { DispatchOptions, Logger } from '../../../plugins/mesh/core/types.ts'
import { InstanceHealth } from '../../../plugins/mesh/health/health.ts'
import type { Mesh } from '../../../plugins/mesh/mesh.ts'
import { eventually } from '../../helpers/eventually.ts'
import { breakingBody } from '../../helpers/mesh/breaking-body.ts'
import { outlierOptions } from '../../helpers/mesh/health.ts'
import { meshOf, meterStub, Recorder, retryOptions, service } from '../../helpers/mesh/mesh.ts'
import { policyOf } from '../../helpers/mesh/policy.ts'
import { raw, refused, resetting, silent, upstream } from '../../helpers/mesh/servers.ts'

const origin = 'http://orders.mesh'
const get = { origin, path: '/', method: 'GET' } as const
const breaker = { minRequests: 4, openFor: '5s', rampFor: '10s' }

interface Status {
  state: string
  requests: number
  errorRatio: number
  slowRatio: number
  admitted: number
}
const statusOf = (mesh: Mesh) => mesh.status()[0]!.concerns['circuit-breaker'] as Status

/** A mesh over one service, with a clock, random numbers, a meter and a log of the test. */
function broken(t: Test, url: string, circuitBreaker: object, policy: Parameters<typeof service>[2] = {}) {
  const at = { now: 1_000_000, dice: 0 }
  const stub = meterStub()
  const lines: Record<string, unknown>[] = []
  const line = (level: string) => (fields: object, message: string) => void lines.push({ level, message, ...fields })
  const log: Logger = { info: line('info'), warn: line('warn'), error: line('error') }
  const options = { now: () => at.now, random: () => at.dice, meter: stub.meter, log }
  const mesh = meshOf(t, [service('orders', [url], { ...policyOf({ circuitBreaker }), ...policy })], options)
  const ask = async (path = '/', method: 'GET' | 'POST' = 'GET') => {
    const { statusCode, body } = await mesh.request({ ...get, path, method, ...(method === 'POST' && { body: 'x' }) })
    await body.dump()
    return statusCode
  }
  const said = () => lines.filter(({ message }) => String(message).startsWith('circuit'))
  return { mesh, at, ask, said, ...stub }
}

t.test('the circuit breaker is not in the chain if it is off', async (t) => {
  const { url } = await upstream(t, 'a')
  for (const circuitBreaker of [false, { errorRatio: false, slowRatio: false }]) {
    const mesh = meshOf(t, [service('orders', [url], policyOf({ circuitBreaker }))])
    t.notOk(mesh.describe('orders').includes('circuit-breaker'))
  }
  const mesh = meshOf(t, [service('orders', [url], policyOf({ circuitBreaker: { errorRatio: false } }))])
  t.ok(mesh.describe('orders').includes('circuit-breaker'))
})

t.test('the circuit opens, refuses calls, admits a probe and then a growing share, and closes', async (t) => {
  let status = 500
  const { url, requests } = await upstream(t, 'a', (request, response) => {
    response.statusCode = status
    request.resume().on('end', () => response.end())
  })
  const { mesh, at, ask, counts, gauges, said } = broken(t, url, breaker)
  t.strictSame(gauges.jingwei_mesh_circuit_state!(), [[{ service: 'orders' }, 0]])
  for (let i = 0; i < 4; i++) t.equal(await ask(), 500, 'the response of the service')
  t.match(statusOf(mesh), { mode: 'enforce', state: 'open', retryInMs: 5_000 })
  t.strictSame(gauges.jingwei_mesh_circuit_state!(), [[{ service: 'orders' }, 2]])

  at.now += 1_500
  await t.rejects(ask(), { code: 'JW_CIRCUIT_OPEN', reason: 'circuit_open', retryAfterMs: 3_500 })
  t.equal(requests.length, 4, 'no request is sent while the circuit is open')
  t.equal(counts['jingwei_mesh_circuit_refusals_total{orders}'], 1)

  status = 200
  at.now += 3_500
  t.strictSame(gauges.jingwei_mesh_circuit_state!(), [[{ service: 'orders' }, 1]])
  t.equal(await ask(), 200)
  t.match(statusOf(mesh), { state: 'half-open', requests: 1, admitted: 0 })
  at.now += 10_000
  t.equal(await ask(), 200)
  t.match(statusOf(mesh), { state: 'closed', requests: 1, errorRatio: 0 })
  const to = (state: string) => counts[`jingwei_mesh_circuit_transitions_total{orders,${state}}`]
  t.strictSame([to('open'), to('half-open'), to('closed')], [1, 1, 1])
  t.strictSame(
    said().map(({ level, message, reason }) => [level, message, reason]),
    [
      ['warn', 'circuit of orders is open', '4 of 4 calls failed in the last 10 s (errorRatio 50%)'],
      ['info', 'circuit of orders is half-open', 'it was open for long enough'],
      ['info', 'circuit of orders is closed', 'all calls succeeded while their share grew']
    ],
    'each logged once, with its reason'
  )
})

t.test('half-open: while the probe is in flight, others are refused', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (request, response) => {
    if (request.url === '/fail') response.writeHead(500).end()
    else held.push(response)
  })
  const { mesh, at, ask } = broken(t, url, breaker)
  for (let i = 0; i < 4; i++) await ask('/fail')
  at.now += 5_000
  const probe = ask()
  await eventually(() => held.length === 1, 'the probe at the service')
  await t.rejects(ask(), { code: 'JW_CIRCUIT_OPEN', reason: 'circuit_half_open' })
  held[0]!.end()
  await probe
  t.match(statusOf(mesh), { state: 'half-open' })
  at.now += 2_000
  const one = ask()
  await eventually(() => held.length === 2, 'one call of five, as the share grows')
  at.dice = 0.2
  await t.rejects(ask(), { code: 'JW_CIRCUIT_OPEN' })
  at.dice = 0.19
  const two = ask()
  await eventually(() => held.length === 3, 'another')
  for (const response of held) response.end()
  await Promise.all([one, two])
})

t.test('no response is a failure: refused, reset, malformed, timed out', async (t) => {
  const garbage = await raw(t, (socket) => socket.once('data', () => socket.end('nonsense\r\n\r\n')))
  const unasked = 'HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n'
  const switching = await raw(t, (socket) => socket.once('data', () => socket.end(unasked)))
  const cases: [what: string, url: string, code: string][] = [
    ['refused', await refused(), 'JW_UPSTREAM_REFUSED'],
    ['reset', (await resetting(t)).url, 'JW_UPSTREAM_RESET'],
    ['malformed', garbage.url, 'JW_UPSTREAM_MALFORMED'],
    ['another protocol', switching.url, 'JW_BAD_UPGRADE'],
    ['attempt timeout', (await silent(t)).url, 'JW_ATTEMPT_TIMEOUT']
  ]
  for (const [what, url, code] of cases) {
    const { mesh, ask } = broken(t, url, breaker, { attemptTimeout: 60 })
    for (let i = 0; i < 4; i++) await t.rejects(ask(), { code }, what)
    t.match(statusOf(mesh), { state: 'open' }, what)
  }
  const policy = { ...policyOf({ circuitBreaker: breaker }), timeout: 60 }
  const mesh = meshOf(t, [service('orders', [(await silent(t)).url], policy)])
  for (let i = 0; i < 4; i++) await t.rejects(mesh.request(get), { code: 'JW_CALL_TIMEOUT' })
  t.match(statusOf(mesh), { state: 'open' }, 'the deadline counts as a failure')
})

t.test('a deadline that a queue has used up is no failure', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (_request, response) => held.push(response))
  const circuitBreaker = { ...breaker, maxConnections: 1, errorRatio: '10%' }
  const policy = { ...policyOf({ circuitBreaker }), timeout: 1_000 }
  const mesh = meshOf(t, [service('orders', [url], policy)])
  const first = new Recorder()
  mesh.dispatch(get, first)
  await eventually(() => held.length === 1, 'the first request')
  held[0]!.write('begun')
  const inLine = new Recorder()
  mesh.dispatch(get, inLine)
  const late = new Recorder()
  mesh.dispatch(get, late)
  await sleep(700)
  held[0]!.end()
  await Promise.all([inLine.done, late.done])
  t.match([inLine.error, late.error], [{ code: 'JW_CALL_TIMEOUT' }, { code: 'JW_CALL_TIMEOUT' }])
  await eventually(() => held.length === 2, 'the second request')
  t.match(statusOf(mesh), { state: 'closed', requests: 1 })
})

t.test('an upload: aborted by the service it is a failure, by the client it is not', async (t) => {
  const { url } = await raw(t, (socket) => {
    let seen = 0
    socket.on('data', (chunk) => {
      seen += chunk.length
      if (seen > 100_000) socket.resetAndDestroy()
    })
  })
  const { mesh } = broken(t, url, { ...breaker, minRequests: 100 })
  const upload = (source: () => AsyncGenerator<string>) =>
    mesh.request({ ...get, method: 'POST', body: Readable.from(source()) })
  async function* endless() {
    for (;;) {
      yield 'x'.repeat(10_000)
      await sleep(1)
    }
  }
  for (let i = 0; i < 3; i++) await t.rejects(upload(endless), { code: 'JW_UPSTREAM_RESET' })
  t.match(statusOf(mesh), { requests: 3, errorRatio: 1 })
  async function* breaking() {
    yield 'x'
    await sleep(20)
    throw Object.assign(new Error('the client is gone'), { code: 'ECONNRESET', syscall: 'read' })
  }
  for (let i = 0; i < 3; i++) await t.rejects(upload(breaking))
  t.match(statusOf(mesh), { requests: 3 })
})

t.test('4xx are no failures', async (t) => {
  const { url } = await upstream(t, 'a', (_request, response) => response.writeHead(404).end())
  const { mesh, ask } = broken(t, url, breaker)
  for (let i = 0; i < 8; i++) t.equal(await ask(), 404)
  t.match(statusOf(mesh), { state: 'closed', requests: 8, errorRatio: 0 })
})

t.test('an abort by the caller is no failure: waiting for a response, uploading, without a connection', async (t) => {
  const { url } = await silent(t)
  const { mesh } = broken(t, url, { ...breaker, perInstance: { maxConnections: 2 } })
  const calls: Recorder[] = []
  for (let i = 0; i < 6; i++) {
    const recorder = new Recorder()
    const body = new PassThrough()
    body.write('a part')
    mesh.dispatch({ ...get, method: 'POST', body }, recorder)
    calls.push(recorder)
  }
  await eventually(() => mesh.status()[0]!.active === 6, 'all to be under way')
  // One caller aborts with an error that would be a failure if it came from the network.
  const reason = Object.assign(new Error('gone'), { code: 'ECONNRESET', syscall: 'read' })
  for (const { controller } of calls) controller.abort(reason)
  await eventually(() => mesh.status()[0]!.active === 0, 'no call in flight')
  t.match(statusOf(mesh), { state: 'closed', requests: 0 })
})

t.test('a probe whose caller leaves admits the next', async (t) => {
  const { url, requests } = await upstream(t, 'a', (request, response) => {
    if (request.url === '/fail') response.writeHead(500).end()
    else if (request.url === '/') response.end()
  })
  const { at, mesh, ask } = broken(t, url, breaker)
  for (let i = 0; i < 4; i++) await ask('/fail')
  at.now += 5_000
  const recorder = new Recorder()
  mesh.dispatch({ ...get, path: '/never' }, recorder)
  await eventually(() => requests.length === 5, 'the request of the probe')
  recorder.controller.abort(new Error('gone'))
  t.equal(await ask(), 200)
})

t.test('refusals of the mesh and a service without instances are no failures', async (t) => {
  const { url } = await silent(t)
  const { mesh } = broken(t, url, { ...breaker, perInstance: { maxConnections: 1, maxPendingRequests: 0 } })
  const first = new Recorder()
  mesh.dispatch(get, first)
  for (let i = 0; i < 6; i++) await t.rejects(mesh.request(get), { code: 'JW_OVERLOADED' })
  t.match(statusOf(mesh), { state: 'closed', requests: 0 })
  first.controller.abort(new Error('gone'))

  const empty = meshOf(t, [service('orders', [], policyOf({ circuitBreaker: breaker }))])
  for (let i = 0; i < 6; i++) await t.rejects(empty.request(get), { code: 'JW_NO_INSTANCE' })
  t.match(statusOf(empty), { state: 'closed', requests: 0 })
})

t.test('slow: to the headers, from the end of the request, whatever the status', async (t) => {
  const held: ServerResponse[] = []
  const { url } = await upstream(t, 'a', (request, response) => {
    request.resume().on('end', () => held.push(response))
  })
  const slowly = { ...breaker, errorRatio: false, slowAfter: '1s', window: '10m' }
  const { mesh, at } = broken(t, url, slowly)
  const respondAfter = async (elapsed: number, body?: PassThrough) => {
    const before = held.length
    const recorder = new Recorder()
    mesh.dispatch({ ...get, method: 'POST', body: body ?? 'x' }, recorder)
    if (body !== undefined) {
      body.write('a')
      await eventually(() => mesh.status()[0]!.active === 1, 'the call in flight')
      at.now += 60_000
      body.end('b')
    }
    await eventually(() => held.length > before, 'the request to arrive')
    at.now += elapsed
    held.at(-1)!.writeHead(200).flushHeaders()
    await eventually(() => recorder.status === 200, 'the header section of the response')
    at.now += 60_000
    held.at(-1)!.end()
    await recorder.done
  }
  for (let i = 0; i < 2; i++) await respondAfter(1_000)
  await respondAfter(900, new PassThrough())
  await respondAfter(10)
  t.match(statusOf(mesh), { requests: 4, slowRatio: 0 }, 'neither a long upload nor a long response is slow')
  const slow = broken(t, url, slowly)
  for (let i = 0; i < 4; i++) {
    const before = held.length
    const call = slow.ask('/', 'POST')
    await eventually(() => held.length > before, 'the request at the service')
    slow.at.now += 1_001
    held.at(-1)!.end()
    await call
  }
  t.match(statusOf(slow.mesh), { state: 'open' })
  t.equal(slow.said()[0]!.reason, '4 of 4 calls were slow in the last 600 s (slowRatio 100%)')
})

t.test('streams and upgrades: the headers decide', async (t) => {
  const { url, server } = await upstream(t, 'a', (_request, response) => {
    response.write('begun')
    setTimeout(() => response.destroy(), 10)
  })
  server.on('upgrade', (_request, socket) =>
    socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n')
  )
  const { mesh } = broken(t, url, breaker)
  for (let i = 0; i < 4; i++) await t.rejects(mesh.request(get).then(({ body }) => body.text()))
  t.match(
    statusOf(mesh),
    { state: 'closed', requests: 4, errorRatio: 0 },
    'a call aborted after the header section is no failure'
  )
  const { socket } = await upgrade(`${origin}/`, { dispatcher: mesh, protocol: 'x' })
  t.match(statusOf(mesh), { requests: 5 })
  socket.destroy()
})

t.test('an interim response is not the final one', async (t) => {
  const { url } = await upstream(t, 'a', (_request, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload' })
    response.writeHead(500).end()
  })
  const { mesh, ask } = broken(t, url, breaker)
  for (let i = 0; i < 4; i++) await ask()
  t.match(statusOf(mesh), { state: 'open' })
})

t.test('a call counts once, with any number of attempts, and a successful retry is no failure', async (t) => {
  let requests = 0
  let failing = (count: number) => count % 2 === 1
  const { url } = await upstream(t, 'a', (_request, response) => {
    response.writeHead(failing(++requests) ? 503 : 200).end()
  })
  const retry = { ...retryOptions, attempts: 2, on: [503] }
  const { mesh, ask } = broken(t, url, breaker, { retry })
  for (let i = 0; i < 6; i++) t.equal(await ask(), 200)
  t.equal(requests, 12, 'each call is tried twice')
  t.match(statusOf(mesh), { state: 'closed', requests: 6, errorRatio: 0 })
  failing = () => true
  for (let i = 0; i < 6; i++) t.equal(await ask(), 503)
  t.match(statusOf(mesh), { state: 'open' })
  const before = requests
  await t.rejects(ask(), { code: 'JW_CIRCUIT_OPEN' })
  t.equal(requests, before, 'an open circuit ends the retries too')
})

t.test('one circuit for each service, over the chains of all routes', async (t) => {
  const { url } = await upstream(t, 'a', (_request, response) => response.writeHead(500).end())
  const { mesh } = broken(t, url, breaker)
  for (const mesh1 of [{ timeout: 1_000 }, { timeout: 2_000 }]) {
    for (let i = 0; i < 2; i++) await (await mesh.request({ ...get, mesh: mesh1 } as typeof get)).body.dump()
  }
  await t.rejects(mesh.request(get), { code: 'JW_CIRCUIT_OPEN' })
})

t.test('shadow: changes state, counts, and admits all calls', async (t) => {
  let status = 500
  const { url, requests } = await upstream(t, 'a', (_request, response) => response.writeHead(status).end())
  const { mesh, at, ask, counts, said } = broken(t, url, { ...breaker, mode: 'shadow' })
  for (let i = 0; i < 7; i++) t.equal(await ask(), 500)
  t.match(statusOf(mesh), { mode: 'shadow', state: 'open' })
  t.equal(requests.length, 7)
  t.equal(counts['jingwei_mesh_shadowed_total{orders,circuit-breaker}'], 3)
  t.equal(counts['jingwei_mesh_circuit_refusals_total{orders}'], undefined)
  status = 200
  at.now += 5_000
  t.equal(await ask(), 200)
  t.match(statusOf(mesh), { state: 'half-open', requests: 1 })
  at.now += 10_000
  t.equal(await ask(), 200)
  t.match(statusOf(mesh), { state: 'closed' })
  t.equal(said().length, 3)
  t.ok(said().every(({ mode }) => mode === 'shadow'))
})

t.test('its gauge ends with the mesh', async (t) => {
  const { url } = await upstream(t, 'a')
  const { mesh, gauges } = broken(t, url, breaker)
  t.equal(gauges.jingwei_mesh_circuit_state!().length, 1)
  await mesh.destroy()
  t.equal(gauges.jingwei_mesh_circuit_state!().length, 0)
})

t.test('an instance that is removed with a queue, and whose connections are closed, leaves no state', async (t) => {
  const { url } = await silent(t)
  const { circuitBreaker } = policyOf({ circuitBreaker: { perInstance: { maxConnections: 1 } } })
  const { name: _, mesh } = service('orders', [], { circuitBreaker: circuitBreaker! })
  const health = new InstanceHealth(() => 0, () => {}) // biome-ignore format: short
  const log = { info() {}, warn() {}, error() {} }
  const open = new ServiceConnector('orders', mesh, null, { log }).to(url)
  const endpoint = new PooledEndpoint(url, mesh, health, open)
  const recorders = [new Recorder(), new Recorder()]
  for (const recorder of recorders) endpoint.dispatch(get as DispatchOptions, recorder)
  const closed = endpoint.close()
  await endpoint.destroy()
  await Promise.all(recorders.map(({ done }) => done))
  t.equal(await Promise.race([closed.then(() => 'closed'), sleep(1000, 'still closing')]), 'closed')
})

for (const kept of [false, true]) {
  t.test(`an aborted upload counts against no instance, buffered for a fallback or not: ${kept}`, async (t) => {
    const { url } = await silent(t)
    const policy = {
      ...policyOf({ circuitBreaker: { minRequests: 1, errorRatio: '1%' } }),
      outlierDetection: outlierOptions({ consecutive5xx: 1 }),
      retry: retryOptions,
      ...(kept && { fallback: [{ on: ['5xx'] as never, service: 'other' }] })
    }
    const { meter, counts } = meterStub()
    const mesh = meshOf(t, [service('orders', [url, (await silent(t)).url], policy)], { meter })
    const { body, breakOff } = breakingBody()
    const recorder = new Recorder()
    mesh.dispatch({ ...get, method: 'PUT', body } as DispatchOptions, recorder)
    await eventually(() => mesh.status()[0]!.instances.some(({ active }) => active > 0), 'the attempt in flight')
    await sleep(50)
    breakOff()
    await recorder.done
    t.match(mesh.status()[0]!.concerns, { 'circuit-breaker': { state: 'closed', requests: 0 } })
    t.strictSame(
      mesh.status()[0]!.instances.map(({ available }) => available),
      [true, true]
    )
    t.equal(counts['jingwei_mesh_retries_total{orders,reset}'], undefined)
  })
}

t.test('a call that ends between two attempts releases its slot in the circuit', async (t) => {
  const { url } = await upstream(t, 'busy', (_request, response) => void response.writeHead(503).end())
  const retry = { ...retryOptions, on: ['5xx'] as never, backoff: { base: 60_000, max: 60_000 } }
  const { circuitBreaker } = policyOf({ circuitBreaker: {} })
  const mesh = meshOf(t, [service('orders', [url], { circuitBreaker: circuitBreaker!, retry, timeout: 60_000 })])
  const recorder = new Recorder()
  mesh.dispatch(get as DispatchOptions, recorder)
  const concerns = () => mesh.status()[0]!.concerns
  await eventually(() => (concerns().retries as { active: number }).active === 1, 'the pause before the retry')
  t.match(concerns(), { 'circuit-breaker': { inFlight: 1 } })
  recorder.controller.abort(new Error('left'))
  t.match(concerns(), { 'circuit-breaker': { inFlight: 0 }, retries: { active: 0 } })
})
