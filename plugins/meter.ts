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

const counter = { inc() {} }
const histogram = { observe() {} }

/** Counts nothing: for code that runs where nobody could read a metric. */
export const unmetered: Meter = {
  counter: () => ({ labels: () => counter }),
  histogram: () => ({ labels: () => histogram }),
  gauge: () => () => {}
}
