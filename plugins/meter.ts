/** Interfaces of metrics that both halves and operations share, modelled on prom-client. */

export interface MetricOptions {
  name: string
  help: string
  /** Default: none. */
  labelNames?: string[]
}

type Collect = (set: (labels: Record<string, string>, value: number) => void) => void

/** Creates metrics. Registering a name again returns the same metric; a gauge then collects from all registrations. */
export interface Meter {
  counter(options: MetricOptions): { labels(...values: (string | number)[]): { inc(value?: number): void } }
  histogram(options: MetricOptions & { buckets: readonly number[] }): {
    labels(...values: (string | number)[]): { observe(value: number): void }
  }
  /** `collect` is called at each scrape and sets the current series. Returns a function that ends the series of this call. */
  gauge(options: MetricOptions & { collect: Collect }): () => void
}

/** The meter of one configuration; its gauges end with the configuration. */
export interface ConfigurationMeter extends Meter {
  /** The same metrics for objects that outlive the configuration. Its gauges end only by their returned function. */
  readonly lasting: Meter
}

const counter = { inc() {} }
const histogram = { observe() {} }

const silent: Meter = {
  counter: () => ({ labels: () => counter }),
  histogram: () => ({ labels: () => histogram }),
  gauge: () => () => {}
}

/** A meter without effect, used when no code could read the metrics. */
export const unmetered: ConfigurationMeter = { ...silent, lasting: silent }

/** The meter of one owner, such as a mesh. Closing it ends its gauges, so that the next owner can use the same meter. */
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
