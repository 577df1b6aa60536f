import fp from 'fastify-plugin'
import type { Metric } from 'prom-client'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import type { MetricOptions } from './bound-metrics.ts'
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

type Collect = (set: (labels: Record<string, string>, value: number) => void) => void

/** One registry for both halves; a second registration of a name is the first one's metric. */
export function createMeter(registry: Registry) {
  const registers = [registry]
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
    gauge: ({ collect, labelNames = [], ...options }: MetricOptions & { collect: Collect }) => {
      new Gauge({
        ...options,
        labelNames,
        registers,
        collect() {
          this.reset()
          collect((labels, value) => this.set(labels, value))
        }
      })
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
