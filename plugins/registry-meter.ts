/**
 * The metrics of a mesh in the prom-client registry of a program. The types are those of a registry's methods, and the
 * metrics have the interface that a registry reads, so prom-client is not loaded: its registries are usually another copy.
 */

import { BoundCounter, BoundGauge, BoundHistogram } from './bound-metrics.ts'
import type { ClosingMeter } from './mesh/library.ts'
import type { Meter, MetricOptions } from './meter.ts'

/** A prom-client `Registry`. */
export interface MetricsRegistry {
  registerMetric(metric: never): void
  getSingleMetric(name: string): unknown
  removeSingleMetric(name: string): void
}

type Bound = BoundCounter | BoundHistogram | BoundGauge

/** Creates metrics in a registry, and removes them when it is closed. */
export class RegistryMeter implements ClosingMeter {
  readonly #registry: MetricsRegistry
  readonly #created = new Map<string, Bound>()

  constructor(registry: MetricsRegistry) {
    this.#registry = registry
  }

  counter(options: MetricOptions): ReturnType<Meter['counter']> {
    return this.#known(options.name, () => new BoundCounter(options))
  }

  histogram(options: MetricOptions & { buckets: readonly number[] }): ReturnType<Meter['histogram']> {
    return this.#known(options.name, () => new BoundHistogram(options))
  }

  gauge({ collect, ...options }: Parameters<Meter['gauge']>[0]): () => void {
    const gauge = this.#known(options.name, () => new BoundGauge(options))
    return gauge.add(collect)
  }

  close(): void {
    for (const [name, metric] of this.#created) {
      if (this.#registry.getSingleMetric(name) === metric) this.#registry.removeSingleMetric(name)
    }
    this.#created.clear()
  }

  #known<M extends Bound>(name: string, make: () => M): M {
    const known = this.#created.get(name)
    if (known !== undefined) return known as M
    if (this.#registry.getSingleMetric(name) !== undefined) {
      const cure = 'give each mesh a registry of its own (Registry.merge joins them), or close the mesh that uses it'
      throw new Error(`createMesh: the registry has a metric ${name} already: ${cure}`)
    }
    const metric = make()
    this.#registry.registerMetric(metric as never)
    this.#created.set(name, metric)
    return metric
  }
}
