import type { Test } from 'tap'
import t from 'tap'
import type { Timer, Timers } from '../../../plugins/clock.ts'
import { OutlierDetector } from '../../../plugins/mesh/concerns/outlier-detection/detector.ts'
import { instanceOf, logOf, outlierOptions } from '../../helpers/mesh/health.ts'
import { meterStub } from '../../helpers/mesh/mesh.ts'

/** Instances a, b, c … under a clock that the test sets. */
function detectorOf(t: Test, count: number, options: object = {}, timers?: Timers) {
  const clock = { now: 1000 }
  const { log, lines } = logOf()
  const { meter, counts, gauges } = meterStub()
  const deps = { log, meter, now: () => clock.now, random: () => 0.5, ...(timers && { timers }) }
  const detector = new OutlierDetector('orders', outlierOptions(options), deps)
  t.teardown(() => detector.close())
  const all = Array.from({ length: count }, (_, index) => instanceOf('abcdefghijklmnopqrst'[index]!, () => clock.now))
  detector.update(all.map(({ instance }) => instance))
  const host = (index: number) => detector.host(all[index]!.endpoint)!
  /** Reports statuses in this order; 0: no response. */
  const report = (index: number, ...statuses: number[]) => {
    for (const status of statuses) {
      if (status > 0 && status < 500) detector.succeeded(host(index))
      else detector.failed(host(index), status)
    }
  }
  const tick = (afterMs: number) => {
    clock.now += afterMs
    detector.tick()
  }
  const out = () => all.flatMap(({ health, instance }) => (health.available ? [] : [instance.id])).join('')
  return { detector, clock, all, host, report, tick, out, lines, counts, gauges }
}

const times = (count: number, status: number) => Array.from({ length: count }, () => status)

t.test('consecutive 5xx eject at once; any other response resets the count', async (t) => {
  const { report, all, out, counts } = detectorOf(t, 3, { consecutive5xx: 5, consecutiveGatewayFailures: false })
  report(0, 500, 500, 500, 500, 404, 500, 501, 0, 503)
  t.equal(out(), '', 'never five in a row')
  report(0, 505)
  t.equal(out(), 'a')
  t.strictSame(all[0]!.flips, [
    'out: outlier-detection: 5 attempts in a row failed (5xx or no response); ejected for 30000 ms'
  ])
  t.strictSame(counts, { 'jingwei_mesh_ejections_total{orders,consecutive-5xx}': 1 })
})

t.test('502, 503, 504 and no response are gateway failures', async (t) => {
  const { report, out, counts } = detectorOf(t, 3, { consecutive5xx: false, consecutiveGatewayFailures: 4 })
  report(0, 502, 503, 504, 500, 0, 0, 0)
  t.equal(out(), '', 'a 500 is not a gateway failure')
  report(0, 504)
  t.equal(out(), 'a')
  t.strictSame(counts, { 'jingwei_mesh_ejections_total{orders,consecutive-gateway-failures}': 1 })
})

t.test('with both counts off, no instance is ejected', async (t) => {
  const { report, out } = detectorOf(t, 3, { consecutive5xx: false, consecutiveGatewayFailures: false })
  report(0, ...times(100, 0))
  t.equal(out(), '')
})

t.test('each ejection lasts longer than the one before, and ends with an interval', async (t) => {
  const { report, tick, out, detector, all, clock, host } = detectorOf(t, 3, { interval: '10s', baseEjection: '30s' })
  report(0, ...times(5, 500))
  t.match(detector.instanceStatus(all[0]!.endpoint), { ejected: true, returnsInMs: 30_000, ejections: 1 })
  tick(10_000)
  tick(10_000)
  tick(9_999)
  t.equal(out(), 'a', 'the ejection lasts until its end')
  tick(1)
  t.equal(out(), '')
  t.equal(all[0]!.flips.at(-1), 'in: outlier-detection: its ejection is over')
  t.equal(all[0]!.health.since, clock.now)
  t.match(detector.instanceStatus(all[0]!.endpoint), { ejected: false, ejections: 1, consecutive5xx: 0 })

  report(0, ...times(5, 500))
  t.equal(host(0).returnsAt, clock.now + 60_000, 'at once again: twice as long')
  tick(60_000)
  report(0, ...times(5, 500))
  t.equal(host(0).returnsAt, clock.now + 90_000)
  tick(90_000)
  tick(10_000)
  report(0, ...times(5, 500))
  t.equal(host(0).returnsAt, clock.now + 90_000, 'one interval without failures reduces the multiplier by one')
  tick(90_000)
  for (let interval = 0; interval < 10; interval++) tick(10_000)
  report(0, ...times(5, 500))
  t.equal(host(0).returnsAt, clock.now + 30_000, 'reset in the end, never below the first ejection time')
})

t.test('maxEjection bounds an ejection and its multiplier', async (t) => {
  const { report, tick, clock, host } = detectorOf(t, 3, { baseEjection: '30s', maxEjection: '100s' })
  for (let round = 0; round < 10; round++) {
    report(0, ...times(5, 500))
    t.equal(host(0).returnsAt - clock.now, Math.min(100_000, 30_000 * (round + 1)))
    tick(100_000)
  }
  t.equal(host(0).multiplier, 4)
})

t.test('maxEjectionPercent: at least one instance can be ejected, and at least one stays', async (t) => {
  const table: [instances: number, percent: string, out: number][] = [
    [1, '100%', 0],
    [2, '100%', 1],
    [3, '100%', 2],
    [3, '10%', 1],
    [3, '0%', 1],
    [10, '10%', 1],
    [10, '30%', 3],
    [15, '10%', 1],
    [20, '10%', 2],
    [20, '14%', 2]
  ]
  for (const [instances, maxEjectionPercent, most] of table) {
    const { report, out, counts, gauges } = detectorOf(t, instances, { maxEjectionPercent })
    for (let index = 0; index < instances; index++) report(index, ...times(5, 503))
    const label = `${maxEjectionPercent} of ${instances}`
    t.equal(out().length, most, label)
    t.equal(counts['jingwei_mesh_ejection_overflows_total{orders}'], instances - most, `${label}: the rest is counted`)
    t.strictSame(gauges.jingwei_mesh_ejections_active!(), [[{ service: 'orders' }, most]])
  }
})

t.test('a refused ejection is tried again after as many failures more', async (t) => {
  const { report, out, counts, tick } = detectorOf(t, 3, { baseEjection: '30s' })
  report(0, ...times(5, 500))
  report(1, ...times(12, 500))
  t.equal(out(), 'a')
  t.equal(counts['jingwei_mesh_ejection_overflows_total{orders}'], 2)
  tick(30_000)
  report(1, ...times(3, 500))
  t.equal(out(), 'b', 'the ejection follows when another instance is back')
})

t.test('instances that are unavailable for other reasons count as well', async (t) => {
  const { report, all, out, counts } = detectorOf(t, 10, { maxEjectionPercent: '20%' })
  all[8]!.health.obstruct('health-check', 'connection refused')
  all[9]!.health.obstruct('health-check', 'connection refused')
  report(0, ...times(5, 500))
  t.equal(out(), 'ij')
  t.equal(counts['jingwei_mesh_ejection_overflows_total{orders}'], 1)
  all[9]!.health.clear('health-check', 'passed')
  report(0, ...times(5, 500))
  t.equal(out(), 'ai')
  report(8, ...times(5, 500))
  t.strictSame(all[8]!.health.obstacles, {
    'health-check': 'connection refused',
    'outlier-detection': '5 attempts in a row failed (5xx or no response); ejected for 30000 ms'
  }, 'an instance that is ejected already causes no further ejection') // biome-ignore format: one assertion
})

t.test('the last available instance is not ejected', async (t) => {
  const { report, all, out } = detectorOf(t, 3, { maxEjectionPercent: '100%' })
  all[1]!.health.obstruct('health-check', 'connection refused')
  all[2]!.health.obstruct('health-check', 'connection refused')
  report(0, ...times(50, 0))
  t.equal(out(), 'bc')
})

t.test('failures of an ejected instance do not count', async (t) => {
  const { report, all, counts, tick } = detectorOf(t, 3, { baseEjection: '10s' })
  report(0, ...times(30, 500))
  t.equal(all[0]!.flips.length, 1, 'an ejected instance is not ejected again')
  t.equal(counts['jingwei_mesh_ejections_total{orders,consecutive-gateway-failures}'], undefined)
  t.equal(counts['jingwei_mesh_ejections_total{orders,consecutive-5xx}'], 1)
  tick(10_000)
  report(0, ...times(4, 500))
  t.equal(all[0]!.flips.length, 2, 'failures before the return do not count after it')
})

t.test('the instance with an outlying success rate is ejected at the interval', async (t) => {
  const successRate = { minHosts: 5, minRequests: 100, stdevFactor: 1.9 }
  const options = { successRate, consecutive5xx: false, consecutiveGatewayFailures: false }
  const { report, tick, out, counts, detector, all } = detectorOf(t, 10, options)
  for (let index = 0; index < 9; index++) report(index, ...times(100, 200))
  report(9, ...times(60, 200), ...times(40, 500))
  t.equal(out(), '', 'no ejection before the end of the interval')
  tick(10_000)
  t.equal(out(), 'j')
  t.equal(counts['jingwei_mesh_ejections_total{orders,success-rate}'], 1)
  t.match(detector.instanceStatus(all[9]!.endpoint), { ejected: true, successRate: 0.6 })
  t.match(detector.instanceStatus(all[0]!.endpoint), { ejected: false, successRate: 1 })
  // Requests from before the ejection do not count again.
  for (let index = 0; index < 9; index++) report(index, ...times(100, index === 0 ? 500 : 200))
  tick(10_000)
  t.equal(out(), 'j', 'one ejected instance of ten reaches 10 %')
  t.equal(counts['jingwei_mesh_ejection_overflows_total{orders}'], 1)
  t.match(detector.instanceStatus(all[9]!.endpoint), { successRate: null }, 'without requests there is no success rate')
})

t.test('failure percentage: the worst are ejected first', async (t) => {
  const failurePercentage = { threshold: '85%', minHosts: 5, minRequests: 50 }
  const options = { failurePercentage, consecutive5xx: false, consecutiveGatewayFailures: false }
  const { report, tick, out, counts } = detectorOf(t, 5, { ...options, maxEjectionPercent: '40%' })
  report(0, ...times(45, 500), ...times(5, 200))
  report(1, ...times(50, 500))
  report(2, ...times(44, 500), ...times(6, 200))
  for (const index of [3, 4]) report(index, ...times(50, 200))
  tick(10_000)
  t.equal(out(), 'ab')
  t.equal(counts['jingwei_mesh_ejections_total{orders,failure-percentage}'], 2)
  t.equal(counts['jingwei_mesh_ejection_overflows_total{orders}'], 1)
})

t.test('by default, rates eject no instance', async (t) => {
  const { report, tick, out } = detectorOf(t, 5)
  for (let index = 0; index < 5; index++) {
    for (let request = 0; request < 200; request++) report(index, index === 0 && request % 4 > 0 ? 500 : 200)
  }
  tick(10_000)
  t.equal(out(), '')
})

t.test('a successful active check ends an ejection, if it began after the ejection', async (t) => {
  const { report, all, out, clock, host } = detectorOf(t, 3)
  clock.now = 5000
  report(0, ...times(5, 500))
  clock.now = 6000
  all[0]!.health.prove(4999)
  t.equal(out(), 'a')
  all[0]!.health.prove(5500)
  t.equal(out(), '')
  t.equal(all[0]!.flips.at(-1), 'in: outlier-detection: an active check succeeded')
  t.equal(all[0]!.health.since, 6000)
  report(0, ...times(5, 500))
  t.equal(host(0).returnsAt, 66_000, 'the next ejection is longer nevertheless')
})

t.test('instances are added and removed', async (t) => {
  const { detector, report, all, host, clock, gauges } = detectorOf(t, 5, { maxEjectionPercent: '100%' })
  report(0, ...times(4, 500))
  report(1, ...times(5, 500))
  const [gone, out] = [host(0), host(1)]
  detector.update(all.slice(2).map(({ instance }) => instance))
  t.equal(detector.host(all[0]!.endpoint), undefined)
  t.strictSame(gauges.jingwei_mesh_ejections_active!(), [[{ service: 'orders' }, 0]])
  clock.now += 60_000
  for (const left of [gone, out]) for (const _ of times(50, 500)) detector.failed(left, 500)
  detector.tick()
  t.strictSame(all[0]!.flips, [], 'attempts in flight have no effect')
  t.equal(all[1]!.flips.length, 1)
  const kept = host(2)
  detector.update(all.slice(2).map(({ instance }) => ({ ...instance, weight: 7 })))
  t.equal(host(2), kept, 'a remaining instance keeps its counts')
  t.equal(detector.instanceStatus(all[0]!.endpoint), undefined)
})

t.test('shadow: counts and logs ejections that it would make', async (t) => {
  const { report, tick, out, lines, counts, gauges, detector } = detectorOf(t, 3, {
    mode: 'shadow',
    baseEjection: '30s'
  })
  report(0, ...times(50, 502))
  report(1, ...times(5, 502))
  t.equal(out(), '')
  t.strictSame(counts, {
    'jingwei_mesh_shadowed_total{orders,outlier-detection}': 1,
    'jingwei_mesh_ejection_overflows_total{orders}': 1
  })
  t.equal(lines.length, 1)
  t.match(lines[0], { level: 'info', service: 'orders', instance: 'http://a.test', concern: 'outlier-detection' })
  t.strictSame(gauges.jingwei_mesh_ejections_active!(), [[{ service: 'orders' }, 0]])
  t.strictSame(detector.status(), { mode: 'shadow', ejected: 1 })
  tick(30_000)
  report(0, ...times(5, 502))
  t.equal(
    counts['jingwei_mesh_shadowed_total{orders,outlier-detection}'],
    2,
    'the ejection is counted again after its time'
  )
})

t.test('intervals run only while needed', async (t) => {
  const set: (() => void)[] = []
  const cleared: Timer[] = []
  let refreshed = 0
  const timers: Timers = {
    setTimeout: (run) => {
      set.push(run)
      return { refresh: () => void refreshed++, unref() {} }
    },
    clearTimeout: (timer) => void (timer && cleared.push(timer))
  }
  const { report, tick, detector } = detectorOf(t, 3, { interval: '10s', baseEjection: '30s' }, timers)
  t.equal(set.length, 0, 'no interval runs at the start')
  report(0, 200, 200)
  t.equal(set.length, 1)
  set[0]!()
  t.equal(refreshed, 1, 'the next interval is scheduled')
  t.equal(cleared.length, 0, 'the interval continues with traffic')
  tick(10_000)
  t.equal(cleared.length, 1, 'the interval ends without traffic')
  report(0, ...times(5, 500))
  t.equal(set.length, 2)
  for (let interval = 0; interval < 3; interval++) tick(10_000)
  t.equal(cleared.length, 1, 'the interval runs until the multiplier has decayed')
  tick(10_000)
  t.equal(cleared.length, 2)
  detector.close()
  report(0, 200)
  t.equal(set.length, 2, 'closed: no more')
})
