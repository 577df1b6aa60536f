/** Bound metrics beside prom-client's own. */
import { Counter, Histogram, Registry } from 'prom-client'
import t from 'tap'
import { createMeter } from '../../plugins/operations/metrics.ts'

t.test('a registry shows the same as of its own metrics', async (t) => {
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
  t.notMatch(await bound.metrics(), /ann/)
})

t.test('a name is one metric, its labels one series', async (t) => {
  const meter = createMeter(new Registry())
  const options = { name: 'a_total', help: 'A.', labelNames: ['x', 'y'] }
  t.equal(meter.counter(options), meter.counter(options))
  const [one, other] = [meter.counter(options).labels('a', 'bc'), meter.counter(options).labels('ab', 'c')]
  t.equal(meter.counter(options).labels('a', 'bc'), one)
  t.not(one, other)
})
