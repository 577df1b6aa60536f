/** Bound metrics beside prom-client's own. */
import { Counter, Histogram, Registry } from 'prom-client'
import t from 'tap'
import { createMeter } from '../../plugins/operations/metrics.ts'
import { byHand } from '../helpers/mesh/discovery.ts'
import { meshOf, service } from '../helpers/mesh/mesh.ts'
import { policyOf } from '../helpers/mesh/policy.ts'

t.test('a bound registry prints the same as prom-client', async (t) => {
  const [own, bound] = [new Registry(), new Registry()]
  const meter = createMeter(bound)
  const counter = { name: 'asked_total', help: 'Questions, "odd" ones too.', labelNames: ['who', 'what'] }
  const histogram = { name: 'took_seconds', help: 'Time.', labelNames: ['who'], buckets: [0.1, 1, 2.5] }
  const counters = [new Counter({ ...counter, registers: [own] }), meter.counter(counter)]
  const histograms = [new Histogram({ ...histogram, registers: [own] }), meter.histogram(histogram)]
  for (const each of counters) {
    each.labels('ann', 'x"y\\z\n').inc()
    each.labels('ann', 'x"y\\z\n').inc(2.5)
    each.labels('bob', '').inc(0)
  }
  for (const each of histograms) {
    const ann = each.labels('ann')
    for (const value of [0, 0.1, 0.1000001, 1, 2, 2.5, 3, 1e9, 0.7]) ann.observe(value)
    each.labels('bob').observe(0.5)
  }
  t.equal(await bound.metrics(), await own.metrics())
  t.match(await own.getMetricsAsJSON(), await bound.getMetricsAsJSON())
  bound.resetMetrics()
  const after = (await bound.metrics()).split('\n').filter((line) => line.includes('ann'))
  t.ok(after.length > 3)
  t.ok(
    after.every((line) => line.endsWith(' 0')),
    'series that code holds are kept'
  )
})

t.test('one name is one metric, and one set of labels one series', async (t) => {
  const meter = createMeter(new Registry())
  const options = { name: 'a_total', help: 'A.', labelNames: ['x', 'y'] }
  t.equal(meter.counter(options), meter.counter(options))
  const [one, other] = [meter.counter(options).labels('a', 'bc'), meter.counter(options).labels('ab', 'c')]
  t.equal(meter.counter(options).labels('a', 'bc'), one)
  t.not(one, other)
})

t.test('a gauge with several collectors has the series of all, until each is removed', async (t) => {
  const registry = new Registry()
  const meter = createMeter(registry)
  const options = { name: 'state', help: 'State.', labelNames: ['service'] }
  const lines = async () => (await registry.metrics()).split('\n').filter((line) => line.startsWith('state{'))
  const of = (service: string, read: () => number) =>
    meter.gauge({ ...options, collect: (set) => set({ service }, read()) })
  let value = 1
  const endOrders = of('orders', () => value)
  const endUsers = of('users', () => 7)
  t.same(await lines(), ['state{service="orders"} 1', 'state{service="users"} 7'])
  value = 2
  t.same(await lines(), ['state{service="orders"} 2', 'state{service="users"} 7'])
  endOrders()
  endOrders()
  t.same(await lines(), ['state{service="users"} 7'])
  endUsers()
  t.equal(registry.getSingleMetric('state'), undefined, 'removing the last collector removes the gauge')
  of('orders', () => 3)
  t.same(await lines(), ['state{service="orders"} 3'])
})

t.test('one meter of two meshes has the series of both, and none of a closed one', async (t) => {
  const registry = new Registry()
  const meter = createMeter(registry)
  const policy = policyOf({ circuitBreaker: {} })
  const one = meshOf(t, [service('orders', [], policy)], { meter, discovery: byHand().discovery })
  const other = meshOf(t, [service('users', [], policy)], { meter, discovery: byHand().discovery })
  const services = async (name: string) => {
    const found = (await registry.metrics()).matchAll(new RegExp(`^${name}\\{service="(\\w+)"`, 'gm'))
    return [...new Set([...found].map(([, service]) => service))]
  }
  const gauges = [
    'jingwei_mesh_instances',
    'jingwei_mesh_panic',
    'jingwei_mesh_circuit_state',
    'jingwei_mesh_pending_requests'
  ]
  for (const name of gauges) t.strictSame(await services(name), ['orders', 'users'], name)
  await one.close()
  for (const name of gauges) t.strictSame(await services(name), ['users'], name)
  await other.close()
  for (const name of gauges) t.strictSame(await services(name), [], name)
})
