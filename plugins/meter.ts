/** Shapes of metrics that both halves and operations share, after prom-client's. */

export interface MetricOptions {
  name: string
  help: string
  /** Default: none. */
  labelNames?: string[]
}

type Collect = (set: (labels: Record<string, string>, value: number) => void) => void

/** Makes metrics. A second registration of a name is the first one's metric; of a gauge, a part of it. */
export interface Meter {
  counter(options: MetricOptions): { labels(...values: (string | number)[]): { inc(value?: number): void } }
  histogram(options: MetricOptions & { buckets: readonly number[] }): {
    labels(...values: (string | number)[]): { observe(value: number): void }
  }
  /** `collect` is called at each scrape and sets the series that exist now. Returns a function that ends those of this call. */
  gauge(options: MetricOptions & { collect: Collect }): () => void
}

/** The meter of one configuration: its gauges end with that. */
export interface ConfigurationMeter extends Meter {
  /** The same metrics, for what outlives the configuration: its gauges end when they are told to. */
  readonly lasting: Meter
}

const counter = { inc() {} }
const histogram = { observe() {} }

const silent: Meter = {
  counter: () => ({ labels: () => counter }),
  histogram: () => ({ labels: () => histogram }),
  gauge: () => () => {}
}

/** Counts nothing: for code that runs where nobody could read a metric. */
export const unmetered: ConfigurationMeter = { ...silent, lasting: silent }

/** The meter of one owner, such as a mesh: its gauges end with it, so that the next owner can have the same meter. */
export class OwnMeter implements Meter {
  readonly counter: Meter['counter']
  readonly histogram: Meter['histogram']
  readonly #meter: Meter
  readonly #ends = new Set<() => void>()

  constructor(meter: Meter) {
    this.#meter = meter
    this.counter = (options) => meter.counter(options)
    this.histogram = (options) => meter.histogram(options)
  }

  readonly gauge: Meter['gauge'] = (options) => {
    const end = this.#meter.gauge(options)
    this.#ends.add(end)
    return () => {
      if (this.#ends.delete(end)) end()
    }
  }

  close(): void {
    for (const end of this.#ends) end()
    this.#ends.clear()
  }
}
