/**
 * Metrics whose series are bound to their labels once. prom-client looks up a series by its labels with every `inc` and
 * `observe`, even after `labels()`. These series only add numbers; the registry reads them at each scrape.
 */
import type { MetricOptions } from '../meter.ts'

interface Value {
  readonly metricName?: string
  readonly labels: Readonly<Record<string, string | number>>
  readonly value: number
}

/** A metric with the interface that prom-client's registry reads. */
export abstract class BoundMetric<S> {
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

  reset(): void {
    this.#series.clear()
  }
}

class CounterSeries {
  value = 0

  inc(by = 1): void {
    this.value += by
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
