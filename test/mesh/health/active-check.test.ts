/** Active checks of whole services, over real sockets. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import type { Discovery } from '../../../plugins/mesh/discovery/index.ts'
import { ActiveChecks } from '../../../plugins/mesh/health/active-check.ts'
import type { Probe } from '../../../plugins/mesh/health/probe.ts'
import { eventually } from '../../helpers/eventually.ts'
import { byHand } from '../../helpers/mesh/discovery.ts'
import { checkOptions, instanceOf, logOf, outlierOptions } from '../../helpers/mesh/health.ts'
import { meshOf, meterStub, service } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'

const get = { origin: 'http://orders.mesh', path: '/', method: 'GET' } as const
const soon = { interval: '20ms', timeout: '5s' }
type Mesh = ReturnType<typeof meshOf>

/** An instance whose health the test sets; `checks` counts its active checks. */
async function patient(t: Test, name: string, more?: (request: IncomingMessage, response: ServerResponse) => void) {
  const state = { health: 200, checks: 0 }
  const server = await upstream(t, name, (request, response) => {
    if (request.url === '/health') {
      state.checks++
      response.writeHead(state.health).end()
    } else if (more) more(request, response)
    else response.end(name)
  })
  return { ...server, state }
}

const seen = (mesh: Mesh) =>
  mesh
    .status()[0]!
    .instances.map(({ available }) => (available ? 'in' : 'out'))
    .join(' ')
const ask = async (mesh: Mesh) => (await mesh.request(get)).body.text()

t.test('an unhealthy instance is unavailable after its first check, and available when healthy', async (t) => {
  const [a, b] = [await patient(t, 'a'), await patient(t, 'b')]
  b.state.health = 500
  const { log, lines } = logOf()
  const { meter, counts } = meterStub()
  const policy = { healthCheck: checkOptions({ ...soon, healthyThreshold: 2 }) }
  const mesh = meshOf(t, [service('orders', [a.url, b.url], policy)], { log, meter })
  await eventually(() => seen(mesh) === 'in out', 'the unhealthy instance to be unavailable')
  for (let call = 0; call < 5; call++) t.equal(await ask(mesh), 'a')
  t.match(mesh.status()[0]!.instances[1], {
    obstacles: { 'health-check': 'GET /health responded with 500' },
    concerns: {
      'health-check': { outcome: 'failure', reason: 'GET /health responded with 500', consecutiveSuccesses: 0 }
    }
  })
  b.state.health = 204
  await eventually(() => seen(mesh) === 'in in', 'the instance to be available again')
  t.match(mesh.status()[0]!.instances[1], { concerns: { 'health-check': { outcome: 'success' } }, obstacles: {} })
  const flips = lines.filter(({ message }) => /^instance .+ is (un)?available$/.test(message))
  t.strictSame(
    flips.map(({ level, instance, concern, reason }) => [level, instance, concern, reason]),
    [
      ['warn', b.url, 'health-check', 'GET /health responded with 500'],
      ['info', b.url, 'health-check', 'passed 2 checks in a row']
    ]
  )
  await eventually(() => (counts['jingwei_mesh_health_checks_total{orders,success}'] ?? 0) > 3, 'successes')
  t.ok(counts['jingwei_mesh_health_checks_total{orders,failure}']! >= 1)
})

t.test('an instance that refuses connections is unavailable', async (t) => {
  const a = await patient(t, 'a')
  const policy = { healthCheck: checkOptions({ ...soon, type: 'tcp' }) }
  const mesh = meshOf(t, [service('orders', [a.url, await refused()], policy)])
  await eventually(() => seen(mesh) === 'in out', 'the instance to be unavailable')
  t.match(mesh.status()[0]!.instances[1]!.obstacles, { 'health-check': 'connection refused' })
  for (let call = 0; call < 4; call++) t.equal(await ask(mesh), 'a')
})

/** Instances by hand, with Consul as their source. */
function asConsul() {
  const hand = byHand()
  const discovery: Discovery = {
    ...hand.discovery,
    source: (config) => ({
      ...hand.discovery.source(config),
      status: () => ({ kind: 'consul', confirmedAt: 0, error: null })
    })
  }
  return { ...hand, discovery }
}

t.test('if Consul reports an instance as passing, one failure is not enough', async (t) => {
  const a = await patient(t, 'a')
  a.state.health = 500
  const { discovery, publish } = asConsul()
  const policy = { healthCheck: checkOptions({ ...soon, unhealthyThreshold: 5 }) }
  const mesh = meshOf(t, [service('orders', [], policy)], { discovery })
  publish('orders', [a.url])
  await eventually(() => seen(mesh) === 'out', 'the instance to be unavailable')
  t.ok(a.state.checks >= 5)
})

t.test('with Consul’s checks ignored, the first check decides', async (t) => {
  const a = await patient(t, 'a')
  a.state.health = 500
  const { discovery, publish } = asConsul()
  const policy = { healthCheck: checkOptions({ interval: '1h', unhealthyThreshold: 5, insteadOfConsul: true }) }
  const mesh = meshOf(t, [service('orders', [], policy)], { discovery })
  publish('orders', [a.url])
  t.equal(seen(mesh), 'in', 'the instance serves until a check fails')
  await eventually(() => seen(mesh) === 'out', 'the instance to be unavailable')
  t.equal(a.state.checks, 1)
})

t.test('the checks of a removed instance end, and all checks end with the mesh', async (t) => {
  const [a, b] = [await patient(t, 'a'), await patient(t, 'b')]
  const { discovery, publish } = byHand()
  const mesh = meshOf(t, [service('orders', [], { healthCheck: checkOptions({ ...soon, interval: '5ms' }) })], {
    discovery
  })
  publish('orders', [a.url, b.url])
  await eventually(() => a.state.checks > 2 && b.state.checks > 2, 'checks of both instances')
  publish('orders', [b.url])
  await sleep(20) // checks in flight end
  const [before, others] = [a.state.checks, b.state.checks]
  await eventually(() => b.state.checks > others + 5, 'further checks of the other instance')
  t.equal(a.state.checks, before)
  publish('orders', [a.url, b.url])
  await eventually(() => a.state.checks > before + 2, 'checks of the instance that is back')
  await mesh.close()
  await sleep(20)
  const after = [a.state.checks, b.state.checks]
  await sleep(60)
  t.strictSame([a.state.checks, b.state.checks], after)
})

t.test('a full pool does not fail active checks', async (t) => {
  const held: ServerResponse[] = []
  const a = await patient(t, 'a', (_request, response) => void held.push(response))
  const full = { maxConnections: 1, maxPendingRequests: 0 }
  const circuitBreaker = { mode: 'enforce', ...full, perInstance: full, errorRatio: false, slowRatio: false } as const
  const mesh = meshOf(t, [
    service('orders', [a.url], {
      healthCheck: checkOptions({ ...soon, interval: '5ms', timeout: '10s', unhealthyThreshold: 1 }),
      circuitBreaker: {
        ...circuitBreaker,
        consecutiveSuccesses: 1,
        failureStatuses: ['500-599'],
        slowAfter: 5000,
        minRequests: 20,
        window: 10_000,
        openFor: 10_000,
        rampFor: 10_000
      }
    })
  ])
  const slow = ask(mesh)
  await eventually(() => held.length === 1, 'the call that holds the only connection')
  const before = a.state.checks
  await eventually(() => a.state.checks > before + 3, 'checks beside the call')
  t.equal(seen(mesh), 'in')
  held[0]!.end('done')
  t.equal(await slow, 'done')
})

t.test('in a panic, unhealthy instances are used, and stay marked as unhealthy', async (t) => {
  const [a, b] = [await patient(t, 'a'), await patient(t, 'b')]
  a.state.health = 500
  b.state.health = 500
  const mesh = meshOf(t, [service('orders', [a.url, b.url], { healthCheck: checkOptions(soon) })])
  await eventually(() => seen(mesh) === 'out out', 'both instances to be unavailable')
  t.equal(mesh.status()[0]!.panic, true)
  t.strictSame(new Set([await ask(mesh), await ask(mesh)]), new Set(['a', 'b']))
  t.equal(seen(mesh), 'out out')
  a.state.health = 200
  await eventually(() => seen(mesh) === 'in out', 'one instance to be available')
})

t.test('a successful check ends an ejection', async (t) => {
  const a = await patient(t, 'a')
  let broken = true
  const b = await patient(t, 'b', (_request, response) => response.writeHead(broken ? 500 : 200).end('b'))
  const policy = {
    healthCheck: checkOptions({ interval: '50ms', timeout: '5s' }),
    outlierDetection: outlierOptions({ consecutive5xx: 2, baseEjection: '300s' })
  }
  const { log, lines } = logOf()
  const mesh = meshOf(t, [service('orders', [a.url, b.url], policy)], { log })
  const isLogged = (reason: RegExp) => lines.some((line) => line.instance === b.url && reason.test(String(line.reason)))
  while (!isLogged(/^2 attempts in a row failed/)) await ask(mesh)
  broken = false
  await eventually(() => isLogged(/^an active check succeeded/), 'the instance to be available again')
  t.equal(seen(mesh), 'in in')
})

t.test('the first checks of 10,000 instances are spread over the interval, few at once', async (t) => {
  const { setTimeout: real } = globalThis
  t.teardown(() => Object.assign(globalThis, { setTimeout: real }))
  const timers: { run: () => void; ms: number }[] = []
  const timer = { unref: () => timer }
  Object.assign(globalThis, {
    setTimeout: (run: () => void, ms: number) => {
      timers.push({ run, ms })
      return timer
    }
  })
  let drawn = 0
  const running: (() => void)[] = []
  let most = 0
  const probe: Probe = (done) => {
    running.push(() => done(null))
    most = Math.max(most, running.length)
    return () => {}
  }
  const checksOf = (count: number) => {
    const random = () => (drawn++ % count) / count
    const options = checkOptions({ interval: '5s', jitter: '0%' })
    const checks = new ActiveChecks({ options, vouched: true, now: () => 0, random, count() {} }, () => probe)
    t.teardown(() => checks.close())
    const instances = Array.from({ length: count }, (_, index) => instanceOf(`i${index}`).instance)
    checks.update(instances)
    return { checks, instances }
  }

  checksOf(4)
  t.strictSame(
    timers.splice(0).map(({ ms }) => ms),
    [0, 50, 100, 150],
    'few: soon'
  )

  const { checks, instances } = checksOf(10_000)
  for (const second of [0, 1, 2, 3, 4]) {
    const within = timers.filter(({ ms }) => Math.floor(ms / 1000) === second).length
    t.equal(within, 2000, `many: a fifth of them in second ${second}`)
  }
  for (const { run } of timers.splice(0)) run() // all at once, as after a standstill
  t.equal(most, 128)
  // Some instances are removed while they wait.
  checks.update(instances.slice(0, 9000))
  let started = 0
  for (let start = running.shift(); start !== undefined; start = running.shift()) {
    started++
    start()
  }
  t.equal(started, 9000, 'each remaining instance is checked')
  t.equal(timers.length, 9000, 'the next check is scheduled')
  t.equal(most, 128)
})
