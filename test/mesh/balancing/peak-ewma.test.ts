/** Peak EWMA: the average itself, the choice by it, and measurements over real sockets. */
import t from 'tap'
import { createBalancer } from '../../../plugins/mesh/balancing/index.ts'
import { ewmaOf, PeakEwma } from '../../../plugins/mesh/balancing/peak-ewma.ts'
import type { Instance } from '../../../plugins/mesh/core/types.ts'
import { instances, options, seeded, tally } from '../../helpers/mesh/instances.ts'
import { meshOf, service } from '../../helpers/mesh/mesh.ts'
import { refused, upstream } from '../../helpers/mesh/servers.ts'

const decay = 10_000

t.test('peaks count at once, and decay with time', async (t) => {
  const ewma = new PeakEwma(decay)
  t.equal(ewma.valueAt(0), null)
  t.equal(ewma.observe(20, 0), 20)
  t.equal(ewma.observe(300, 0), 300, 'a higher latency is taken at once')
  t.ok(Math.abs(ewma.valueAt(decay)! - 300 / Math.E) < 1e-9, 'unasked')
  const eased = ewma.observe(20, decay)
  t.ok(Math.abs(eased - (300 / Math.E + 20 * (1 - 1 / Math.E))) < 1e-9, 'a lower latency is averaged')
  t.equal(ewma.observe(eased - 1, decay), eased, 'the average decays by time, not by count')
})

t.test('failures count as the worst latency, by their share', async (t) => {
  const ewma = new PeakEwma(decay)
  t.equal(ewma.fail(1, 5000, 0), 5000, 'a failure is the only known latency')
  const good = new PeakEwma(decay)
  good.observe(10, 0)
  const once = good.fail(1, 5000, 10)
  t.ok(once > 14 && once < 16, `one failure in many calls: ${once}`)
  t.equal(good.fail(400, 5000, 10), 400, 'a slow failure is taken at once')
  let failing = 0
  for (let i = 1; i <= 1000; i++) failing = good.fail(1, 5000, 10 + i * 50)
  t.ok(failing > 4900, `always: ${failing}`)
})

/** Attempts at a steady rate, each over after its instance's latency; counts per instance. */
function simulate(among: Instance[], latencyOf: (id: string) => number | 'fails at once', rate: number, times: number) {
  let nowMs = 0
  const balancer = createBalancer(options({ policy: 'peak-ewma', decay }), among, {
    random: seeded(4),
    now: () => nowMs
  })
  const flying: { until: number; instance: Instance; elapsed: number; failed: boolean }[] = []
  const picks: Instance[] = []
  for (let i = 0; i < times; i++) {
    nowMs += 1000 / rate
    for (const { instance, elapsed, failed } of flying.filter(({ until }) => until <= nowMs)) {
      instance.endpoint.active--
      const ewma = ewmaOf(instance.endpoint, decay)
      if (failed) ewma.fail(elapsed, 5000, nowMs)
      else ewma.observe(elapsed, nowMs)
    }
    const left = flying.filter(({ until }) => until > nowMs)
    flying.splice(0, flying.length, ...left)
    const instance = balancer.pick(null)!
    instance.endpoint.active++
    const latency = latencyOf(instance.id)
    const elapsed = latency === 'fails at once' ? 0.5 : latency
    flying.push({ until: nowMs + elapsed, instance, elapsed, failed: latency === 'fails at once' })
    picks.push(instance)
  }
  return tally(among, picks)
}

t.test('a slow instance gets few calls, a fast-failing one almost none, equal ones the same', async (t) => {
  const slow = simulate(instances([1, 1, 1, 1]), (id) => (id === 'a' ? 200 : 10), 500, 5000)
  t.ok(slow[0]! < 250, `slow: ${slow}`)
  t.ok(Math.min(...slow.slice(1)) > 1000, `${slow}`)
  const failing = simulate(instances([1, 1, 1, 1]), (id) => (id === 'a' ? 'fails at once' : 10), 500, 5000)
  t.ok(failing[0]! < 100, `failing: ${failing}`)
  const jitter = seeded(8)
  const even = simulate(instances([1, 1, 1, 1]), () => 8 + 4 * jitter(), 500, 8000)
  t.ok(Math.min(...even) > 1500, `even: ${even}`)
})

t.test('an instance that was slow is called again when its peak has decayed', async (t) => {
  let slow = true
  const among = instances([1, 1])
  const before = simulate(among, (id) => (id === 'a' && slow ? 2000 : 10), 100, 500)
  t.ok(before[0]! < 60, `${before}`)
  slow = false
  const fresh = instances([1, 1])
  ewmaOf(fresh[0]!.endpoint, decay).observe(2000, 0)
  const after = simulate(fresh, () => 10, 100, 20_000)
  t.ok(after[0]! > 2000, `${after}`)
})

t.test('one call at a time: after one slow response an instance still gets a call now and then', async (t) => {
  const fresh = instances([1, 1, 1])
  ewmaOf(fresh[0]!.endpoint, decay).observe(4000, 0)
  const [a] = simulate(fresh, () => 5, 100, 1000)
  t.ok(a! >= 3 && a! <= 10, `within 10 s at 100 calls a second: ${a}`)
  const rare = instances([1, 1, 1])
  ewmaOf(rare[0]!.endpoint, decay).observe(4000, 0)
  const [few] = simulate(rare, () => 5, 2, 40)
  t.ok(few! >= 1 && few! <= 3, `within 20 s at 2 calls a second: ${few}`)
  const failing = instances([1, 1, 1])
  ewmaOf(failing[0]!.endpoint, decay).fail(1, 5000, 0)
  t.equal(simulate(failing, () => 5, 100, 1000)[0], 0, 'a failing instance gets no call')
})

t.test(
  'instances are picked by weight under load, and an unmeasured instance gets one attempt at a time',
  async (t) => {
    const loaded = instances([1, 4], [4, 8])
    for (const { endpoint } of loaded) ewmaOf(endpoint, decay).observe(10, 0)
    const deps = { random: seeded(2), now: () => 0 }
    const byWeight = createBalancer(options({ policy: 'peak-ewma', decay }), loaded, deps)
    for (let i = 0; i < 20; i++) t.equal(byWeight.pick(null)!.id, 'b', '8/4 + 1 is less than 4 + 1')
    t.strictSame(byWeight.describe!(loaded[1]!), { weight: 4, active: 8, ewmaMs: 10, score: 30 })

    const fresh = instances([1, 1], [0, 3])
    ewmaOf(fresh[1]!.endpoint, decay).observe(10, 0)
    const balancer = createBalancer(options({ policy: 'peak-ewma', decay }), fresh, deps)
    t.equal(balancer.pick(null)!.id, 'a', 'the unmeasured instance is tried at once')
    fresh[0]!.endpoint.active = 1
    for (let i = 0; i < 20; i++) t.equal(balancer.pick(null)!.id, 'b', 'further calls wait for its measurement')
  }
)

t.test('over sockets, latency is measured to the headers, and refusals and 5xx count as failures', async (t) => {
  let nowMs = 0
  let finish = () => {}
  const slow = await upstream(t, 'slow', (_request, response) => {
    nowMs += 120
    response.writeHead(200).flushHeaders()
    finish = () => response.end('slow')
  })
  const failing = await upstream(t, 'failing', (_request, response) => response.writeHead(500).end())
  const gone = await refused()
  const mesh = meshOf(
    t,
    [
      service('slow', [slow.url], { balance: 'peak-ewma' }),
      service('failing', [failing.url], { balance: 'peak-ewma', attemptTimeout: 4000 }),
      service('gone', [gone], { balance: 'peak-ewma', attemptTimeout: 3000 }),
      service('plain', [slow.url])
    ],
    { now: () => nowMs }
  )
  const ask = async (name: string) => {
    const { body } = await mesh.request({ origin: `http://${name}.mesh`, path: '/', method: 'GET' })
    finish()
    await body.text()
  }
  const said = (name: string) => mesh.status().find((each) => each.name === name)!.instances[0]!.concerns.balance
  t.strictSame(said('slow'), { weight: 1, active: 0, score: 0 })
  await ask('slow')
  nowMs += 1000
  const { ewmaMs } = said('slow') as { ewmaMs: number }
  t.ok(Math.abs(ewmaMs - 120 * Math.exp(-1000 / decay)) < 0.01, `${ewmaMs}`)
  await ask('failing')
  t.match(said('failing'), { ewmaMs: 4000 })
  await t.rejects(ask('gone'), { code: 'JW_UPSTREAM_REFUSED' })
  t.match(said('gone'), { ewmaMs: 3000 })
  await ask('plain')
  t.strictSame(said('plain'), { weight: 1, share: 1 })
})

t.test('an aborted call is no failure, but its wait counts as latency', async (t) => {
  let nowMs = 0
  const arrived = Promise.withResolvers<void>()
  const hanging = await upstream(t, 'hanging', () => arrived.resolve())
  const mesh = meshOf(t, [service('hanging', [hanging.url], { balance: 'peak-ewma' })], { now: () => nowMs })
  const leave = new AbortController()
  const call = mesh.request({
    origin: 'http://hanging.mesh',
    path: '/',
    method: 'GET',
    signal: leave.signal
  })
  await arrived.promise
  nowMs = 700
  leave.abort()
  await t.rejects(call)
  t.match(mesh.status()[0]!.instances[0]!.concerns.balance, { ewmaMs: 700, active: 0 })
})
