import fp from 'fastify-plugin'
import type { GaugeConfiguration, Metric } from 'prom-client'
import { Counter, collectDefaultMetrics, Gauge, Registry } from 'prom-client'
import { BoundCounter, BoundHistogram, BoundMetric } from '../bound-metrics.ts'
import type { ConfigurationMeter, Meter, MetricOptions } from '../meter.ts'
import { OwnMeter } from '../meter.ts'
import { droppedLines } from './logging.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * prom-client registry of this configuration, including the metrics of the gateway; `/metrics` shows it. Metrics that
     * plugins register here end with the configuration. A plugin may replace the decorator, as fastify-metrics does, so the
     * gateway's own code uses `meter.registry`.
     */
    metrics: Registry
    /** Creates counters, histograms and gauges. Their series are bound to their labels once, and outlive the configuration. */
    meter: ConfigurationMeter & Pick<ReturnType<typeof createMeter>, 'registry' | 'forget'>
  }
}

type Collect = Parameters<Meter['gauge']>[0]['collect']

/** Creates the meter of both halves. Registering a name again returns the same metric; a gauge then collects from all registrations. */
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
    /** Removes the series whose label has one of these values. */
    forget: (gone: Readonly<Record<string, readonly string[]>>): void => {
      for (const metric of registry.getMetricsAsArray() as unknown[]) {
        if (!(metric instanceof BoundMetric)) continue
        for (const [label, values] of Object.entries(gone)) metric.remove(label, values)
      }
    },
    /** Returns a function that ends the series of this call. After the last one, the gauge leaves the registry. */
    gauge: ({ collect, labelNames = [], ...options }: MetricOptions & { collect: Collect }): (() => void) => {
      const { name } = options
      const parts = gauges.get(name) ?? new Set<Collect>()
      if (parts.size === 0) {
        openGauge({ ...options, labelNames, registers }, parts)
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

/** Registers a gauge. A separate function, since a closure of the first caller would keep its configuration in memory. */
function openGauge(options: Omit<GaugeConfiguration<string>, 'collect'>, parts: ReadonlySet<Collect>): void {
  new Gauge({
    ...options,
    collect() {
      this.reset()
      for (const part of parts) part((labels, value) => this.set(labels, value))
    }
  })
}

/** Creates the metrics of the process: those of both halves and those of Node. */
function createProcessMetrics() {
  const registry = new Registry()
  collectDefaultMetrics({ register: registry })
  // Removed: gauges with the suffix of counters, which are only the sums of the metrics by type.
  for (const kind of ['handles', 'requests', 'resources']) registry.removeSingleMetric(`nodejs_active_${kind}_total`)
  new Counter({
    name: 'jingwei_log_lines_dropped_total',
    help: 'Log lines lost because stdout could not be written: a full disk, a closed pipe, or a pipe that is not read',
    registers: [registry],
    collect() {
      this.reset()
      this.inc(droppedLines())
    }
  })
  return createMeter(registry)
}

/** The registry of a configuration. It includes the metrics of the process and rejects other metrics with their names. */
class ConfigurationRegistry extends Registry {
  readonly #process: Registry

  constructor(process: Registry) {
    super()
    this.#process = process
  }

  override getMetricsAsArray() {
    return [...this.#process.getMetricsAsArray(), ...super.getMetricsAsArray()]
  }

  override getSingleMetric<T extends string>(name: string): Metric<T> | undefined {
    return super.getSingleMetric<T>(name) ?? this.#process.getSingleMetric<T>(name)
  }

  override registerMetric<T extends string>(metric: Metric<T>): void {
    const { name } = metric as unknown as { name: string }
    if (this.#process.getSingleMetric(name) !== undefined) {
      throw new Error(`A metric with the name ${name} has already been registered.`)
    }
    super.registerMetric(metric)
  }
}

export default fp(
  async (fastify) => {
    const lasting = fastify.stores.claim('jingwei.metrics', null, createProcessMetrics, ({ registry }) =>
      registry.clear()
    )
    const registry = new ConfigurationRegistry(lasting.registry)
    const own = new OwnMeter(lasting)
    fastify.decorate('metrics', registry)
    fastify.decorate('meter', Object.assign(own, { lasting, registry, forget: lasting.forget }))
    fastify.addHook('onClose', async () => {
      own.close()
      registry.clear()
    })
  },
  { name: 'jingwei-metrics', fastify: '5.x' }
)
