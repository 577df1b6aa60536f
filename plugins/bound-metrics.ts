/**
 * Metrics whose series are bound to their labels once. prom-client looks up a series by its labels with every `inc` and
 * `observe`, even after `labels()`. These series only add numbers; the registry reads them at each scrape.
 */
import type { Meter, MetricOptions } from './meter.ts'

interface Value {
  readonly metricName?: string
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
}

/** A series, which `reset` sets to 0. */
interface Series {
  reset(): void
}

/** A metric with the interface that prom-client's registry reads. */
export abstract class BoundMetric<S extends Series> {
  readonly name: string
  readonly help: string
  readonly labelNames: readonly string[]
  readonly #series = new Map<string, { labels: Record<string, string>; series: S }>()

  constructor({ name, help, labelNames = [] }: MetricOptions) {
    this.name = name
    this.help = help
    this.labelNames = labelNames
  }

  abstract readonly type: 'counter' | 'histogram'
  protected abstract create(): S
  protected abstract values(): Value[]

  async get() {
    return { name: this.name, help: this.help, type: this.type, aggregator: 'sum', values: this.values() }
  }

  /** Returns the series with these label values, in the order of the label names. Creates it with value 0 if it is new. */
  labels(...given: (string | number)[]): S {
    const key = given.join('\0')
    const known = this.#series.get(key)
    if (known !== undefined) return known.series
    const labels: Record<string, string> = {}
    for (const [i, name] of this.labelNames.entries()) labels[name] = String(given[i])
    const series = this.create()
    this.#series.set(key, { labels, series })
    return series
  }

  /** Removes the series whose label has one of these values. Code that still holds a removed series counts without effect. */
  remove(label: string, values: readonly string[]): void {
    if (values.length === 0 || !this.labelNames.includes(label)) return
    const gone = new Set(values)
    for (const [key, { labels }] of this.#series) if (gone.has(labels[label]!)) this.#series.delete(key)
  }

  protected all(): Iterable<{ labels: Record<string, string>; series: S }> {
    return this.#series.values()
  }

  /** Sets all series to 0. They are kept, since callers hold them. */
  reset(): void {
    for (const { series } of this.#series.values()) series.reset()
  }
}

class CounterSeries {
  value = 0

  inc(by = 1): void {
    this.value += by
  }

  reset(): void {
    this.value = 0
  }
}

export class BoundCounter extends BoundMetric<CounterSeries> {
  readonly type = 'counter'

  protected create(): CounterSeries {
    return new CounterSeries()
  }

  protected values(): Value[] {
    return Array.from(this.all(), ({ labels, series }) => ({ labels, value: series.value }))
  }
}

class HistogramSeries {
  /** Observations per bucket, not cumulative; the last bucket is for values above all bounds. */
  readonly counts: Float64Array
  sum = 0
  readonly #bounds: readonly number[]

  constructor(bounds: readonly number[]) {
    this.#bounds = bounds
    this.counts = new Float64Array(bounds.length + 1)
  }

  observe(value: number): void {
    let i = 0
    while (i < this.#bounds.length && value > this.#bounds[i]!) i++
    this.counts[i]!++
    this.sum += value
  }

  reset(): void {
    this.counts.fill(0)
    this.sum = 0
  }
}

export class BoundHistogram extends BoundMetric<HistogramSeries> {
  readonly type = 'histogram'
  readonly #bounds: readonly number[]

  constructor({ buckets, ...options }: MetricOptions & { buckets: readonly number[] }) {
    super(options)
    this.#bounds = buckets
  }

  protected create(): HistogramSeries {
    return new HistogramSeries(this.#bounds)
  }

  protected values(): Value[] {
    const values: Value[] = []
    for (const { labels, series } of this.all()) {
      let count = 0
      for (const [i, bound] of [...this.#bounds, '+Inf'].entries()) {
        count += series.counts[i]!
        values.push({ metricName: `${this.name}_bucket`, labels: { le: bound, ...labels }, value: count })
      }
      values.push({ metricName: `${this.name}_sum`, labels, value: series.sum })
      values.push({ metricName: `${this.name}_count`, labels, value: count })
    }
    return values
  }
}

type Collect = Parameters<Meter['gauge']>[0]['collect']

/** A gauge whose series are collected at each scrape. */
export class BoundGauge {
  readonly type = 'gauge'
  readonly name: string
  readonly help: string
  readonly labelNames: readonly string[]
  readonly #collects = new Set<Collect>()

  constructor({ name, help, labelNames = [] }: MetricOptions) {
    this.name = name
    this.help = help
    this.labelNames = labelNames
  }

  /** Adds series. Returns a function that ends them. */
  add(collect: Collect): () => void {
    this.#collects.add(collect)
    return () => void this.#collects.delete(collect)
  }

  async get() {
    const values: Value[] = []
    for (const collect of this.#collects) collect((labels, value) => values.push({ labels, value }))
    return { name: this.name, help: this.help, type: this.type, aggregator: 'sum', values }
  }

  /** Does nothing: the values are those of the moment. */
  reset(): void {}
}
