import fp from 'fastify-plugin'
import type { Metric } from 'prom-client'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { Meter, MetricOptions } from '../meter.ts'
import { BoundCounter, BoundHistogram } from './bound-metrics.ts'
import { droppedLines } from './logging.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * The registry that `/metrics` shows. A plugin may take the name for a decorator of its own, as fastify-metrics does:
     * the gateway's code uses `meter.registry`.
     */
    metrics: Registry
    /** Makes counters, histograms and gauges in the registry. Their series are bound to their labels once. */
    meter: ReturnType<typeof createMeter>
  }
}

type Collect = Parameters<Meter['gauge']>[0]['collect']

/** One registry for both halves. A second registration of a name is the first one's metric; of a gauge, a part of it. */
export function createMeter(registry: Registry) {
  const registers = [registry]
  const gauges = new Map<string, Set<Collect>>()
  const known = <M extends BoundCounter | BoundHistogram>(name: string, make: () => M): M => {
    const before = registry.getSingleMetric(name)
    if (before !== undefined) return before as unknown as M
    const metric = make()
    registry.registerMetric(metric as unknown as Metric)
    return metric
  }
  return {
    registry,
    counter: (options: MetricOptions) => known(options.name, () => new BoundCounter(options)),
    histogram: (options: MetricOptions & { buckets: readonly number[] }) =>
      known(options.name, () => new BoundHistogram(options)),
    /** Returns a function that ends the series of this call; the last one takes the gauge out of the registry. */
    gauge: ({ collect, labelNames = [], ...options }: MetricOptions & { collect: Collect }): (() => void) => {
      const { name } = options
      const parts = gauges.get(name) ?? new Set<Collect>()
      if (parts.size === 0) {
        new Gauge({
          ...options,
          labelNames,
          registers,
          collect() {
            this.reset()
            for (const part of parts) part((labels, value) => this.set(labels, value))
          }
        })
        gauges.set(name, parts)
      }
      parts.add(collect)
      return () => {
        if (!parts.delete(collect) || parts.size > 0) return
        gauges.delete(name)
        registry.removeSingleMetric(name)
      }
    }
  }
}

export default fp(
  async (fastify) => {
    const registry = new Registry()
    collectDefaultMetrics({ register: registry })
    // Gauges with the suffix of counters, and no more than the sums of their namesakes by type.
    for (const kind of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${kind}_total`)
    new Counter({
      name: 'jingwei_log_lines_dropped_total',
      help: 'Log lines lost because stdout could not be written: a full disk, a closed pipe, a reader that has stopped',
      registers: [registry],
      collect() {
        this.reset()
        this.inc(droppedLines())
      }
    })
    fastify.decorate('metrics', registry)
    fastify.decorate('meter', createMeter(registry))
    fastify.addHook('onClose', async () => registry.clear())
  },
  { name: 'jingwei-metrics', fastify: '5.x' }
)
