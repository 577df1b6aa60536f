import fp from 'fastify-plugin'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

declare module 'fastify' {
  interface FastifyInstance {
    /** What `/metrics` shows; a plugin adds its own with `registers: [fastify.metrics]`. */
    metrics: Registry
    /** The same registry for those who know no prom-client: the mesh. */
    meter: ReturnType<typeof createMeter>
  }
}

interface MetricOptions {
  name: string
  help: string
  labelNames: string[]
}
type Collect = (set: (labels: Record<string, string>, value: number) => void) => void

/** One registry for both halves; a second registration of a name is the first one's metric. */
export function createMeter(registry: Registry) {
  const registers = [registry]
  return {
    counter: (options: MetricOptions) =>
      (registry.getSingleMetric(options.name) as Counter | undefined) ?? new Counter({ ...options, registers }),
    histogram: (options: MetricOptions & { buckets?: number[] }) =>
      (registry.getSingleMetric(options.name) as Histogram | undefined) ?? new Histogram({ ...options, registers }),
    gauge: ({ collect, ...options }: MetricOptions & { collect: Collect }) => {
      new Gauge({
        ...options,
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
    fastify.decorate('metrics', registry)
    fastify.decorate('meter', createMeter(registry))
    fastify.addHook('onClose', async () => registry.clear())
  },
  { name: 'jingwei-metrics', fastify: '5.x' }
)
