// A fleet of real processes, registered in a real Consul, under steady load, with faults injected: no idempotent
// request fails that a healthy instance could have served, latencies are soon normal again, and retries stay within
// their budget.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import { startConsul } from '../../helpers/consul.ts'
import { waitFor } from '../../helpers/processes.ts'
import type { Member } from './fleet.ts'
import { startFleet } from './fleet.ts'
import { startGateway } from './gateway.ts'
import type { Mood } from './instance.ts'
import { slowMs } from './instance.ts'
import type { Scenario } from './scenario.ts'
import { failureSince, interval, rate, report, run, since, whole, within } from './scenario.ts'
import { Steady } from './steady.ts'

t.setTimeout(300_000)
const consul = await startConsul()
t.teardown(consul.stop)
const fleet = await startFleet(t, consul, 'orders', 'aaabbb')
const [a0, a1, a2, b0, b1, b2] = fleet as [Member, Member, Member, Member, Member, Member]
const zoneA = [a0, a1, a2]

const outlierDetection = {
  consecutive5xx: 3, consecutiveGatewayFailures: 3,
  interval: `${interval}ms`, baseEjection: '1s', maxEjection: '2s', maxEjectionPercent: '50%'
} // biome-ignore format: short
const retry = { attempts: 3, on: ['gateway-error', '5xx'], budget: '20%', backoff: { base: '10ms', max: '50ms' } }
const mesh = {
  balance: 'least-request',
  timeout: '3s',
  attemptTimeout: '400ms',
  connectTimeout: '300ms',
  retry,
  healthCheck: { interval: '400ms', timeout: '300ms', unhealthyThreshold: 2, healthyThreshold: 1 },
  outlierDetection,
  circuitBreaker: { maxConnections: 256, maxPendingRequests: 128, perInstance: { maxConnections: 64 } }
}
/** Services with the same instances under other policies, each with its own state. */
const variant = (mesh: object) => ({ consul: { service: 'orders' }, mesh: { healthCheck: false, ...mesh } })
const services = {
  orders: {},
  // A short decay, so that recovered instances have their share again within the test.
  quick: variant({ balance: { policy: 'peak-ewma', decay: '1s' } }),
  nearby: variant({ balance: { locality: 'prefer' } }),
  hedged: variant({ hedge: { after: '50ms' } }),
  // The one healthy instance of six must get all of the traffic: no panic mode, and enough retries to reach it.
  last: variant({
    balance: { panicThreshold: '0%' },
    retry: { ...retry, attempts: 5 },
    outlierDetection: { ...outlierDetection, maxEjectionPercent: '100%' },
    circuitBreaker: false
  }),
  fragile: variant({ outlierDetection: false, circuitBreaker: false })
}
const gateway = await startGateway(t, { consul: consul.url, mesh, services, zone: 'a' })
const service = 'orders'
t.teardown(() => {
  if (!t.passing()) console.error(gateway.log())
})

const be = (mood: Mood) => (member: Member) => member.be(mood)
const signal = (name: NodeJS.Signals) => async (member: Member) => member.signal(name)
const end = (name: 'SIGKILL' | 'SIGTERM') => (member: Member) => member.end(name)
const start = (member: Member) => member.start()
const retried =
  (...reasons: string[]): Scenario['felt'] =>
  ({ retries }) =>
    Object.keys(retries).some((reason) => reasons.includes(reason))
const dead = { fault: end('SIGKILL'), heal: start, felt: retried('connect-failure', 'reset'), out: true }
const frozen = { fault: signal('SIGSTOP'), heal: signal('SIGCONT'), felt: retried('timeout'), out: true }

t.test('killed', (t) => run(t, { gateway, service, victims: [a0], ...dead }))
t.test('frozen', (t) => run(t, { gateway, service, victims: [a1], ...frozen }))
const moods = [
  ['errors', a2, retried('500')],
  ['resetting', b0, retried('reset')],
  ['refusing', b1, retried('connect-failure', 'reset')]
] as const
for (const [mood, victim, felt] of moods) {
  const victims = [victim]
  t.test(mood, (t) => run(t, { gateway, service, victims, fault: be(mood), heal: be('well'), felt, out: true }))
}

const slow = { victims: [b2], fault: be('slow'), heal: be('well'), out: false }
t.test('slow, where latency decides', (t) => {
  const felt: Scenario['felt'] = (_cost, load, faultAt) => load.gets(faultAt).some(({ ms }) => ms! >= slowMs)
  // A slow instance is probed now and then, by at most one call in twenty.
  return run(t, { gateway, service: 'quick', ...slow, felt, percent: 94 })
})
t.test('slow, with hedging', (t) => run(t, { gateway, service: 'hedged', ...slow, felt: ({ hedges }) => hedges > 0 }))

t.test('a zone is killed at once', (t) => run(t, { gateway, service, victims: zoneA, ...dead }))
t.test('a zone freezes at once', (t) => run(t, { gateway, service, victims: zoneA, ...frozen }))
t.test('the zone that has all of the traffic is killed', (t) => {
  const near = new Set(zoneA.map(({ name }) => name))
  const felt: Scenario['felt'] = (cost, load, faultAt) =>
    dead.felt(cost, load, faultAt) &&
    load.gets().every(({ at, instance }) => near.has(instance) || at > faultAt - 500 || instance === '')
  return run(t, { gateway, service: 'nearby', victims: zoneA, ...dead, felt })
})
t.test('all but one are killed', (t) => run(t, { gateway, service: 'last', victims: fleet.slice(1), ...dead }))

/** Restarts every instance in sequence, under load. */
async function rolling(t: Test, restart: (member: Member, index: number) => Promise<void>): Promise<Steady> {
  const before = await gateway.cost(service)
  const load = new Steady(`${gateway.url}/${service}`, { rate, postEvery: 20 })
  t.teardown(() => load.destroy())
  const from = performance.now()
  for (const [index, member] of fleet.entries()) {
    await restart(member, index)
    await whole(gateway, service)
  }
  await load.stop()
  const cost = since(before, await gateway.cost(service))
  report(t, load, cost)
  t.strictSame(load.failures('GET').map(failureSince(from)), [], 'no idempotent request failed')
  within(t, cost)
  return load
}

t.test('rolling restart in order: maintenance or deregistration, then SIGTERM', async (t) => {
  const load = await rolling(t, async (member, index) => {
    if (index % 2 === 0) await member.maintenance(true)
    else await member.deregister()
    const listed = async () => (await gateway.instances(service)).some(({ name }) => name === member.name)
    await waitFor('the gateway no longer lists it', async () => !(await listed()))
    await sleep(100) // requests in flight end
    await member.end('SIGTERM')
    await member.start()
    if (index % 2 === 0) await member.maintenance(false)
  })
  // The attempt timeout is short for a machine that stands still.
  const posts = load.failures('POST').filter(({ failure }) => !failure!.startsWith('504'))
  t.strictSame(posts.map(failureSince(0)), [], 'no POST failed but by the attempt timeout')
})

t.test('rolling restart without deregistration: SIGTERM only', async (t) => {
  await rolling(t, async (member) => {
    await member.end('SIGTERM')
    await member.start()
  })
})

t.test('all are unavailable: no storm of retries', async (t) => {
  const before = await gateway.cost('fragile')
  const load = new Steady(`${gateway.url}/fragile`, { rate, postEvery: 20 })
  t.teardown(() => load.destroy())
  await waitFor('calm', () => load.sent.length > 200)
  await Promise.all(fleet.map(be('unavailable')))
  const from = load.sent.length
  await waitFor('two seconds without an available instance', () => load.sent.length > from + 2 * rate)
  await Promise.all(fleet.map(be('well')))
  const healedAt = performance.now()
  await waitFor('calm again', () => load.gets(healedAt).length > 100)
  await load.stop()
  const cost = since(before, await gateway.cost('fragile'))
  report(t, load, cost)
  const failures = load.failures('GET')
  t.ok(failures.length > 100, `${failures.length} failed`)
  t.strictSame(
    failures.filter(({ at, failure }) => at > healedAt || !failure!.startsWith('503')).map(failureSince(healedAt)),
    []
  )
  t.ok(cost.overflows > 100, `${cost.overflows} retries were not allowed`)
  within(t, cost)
})
