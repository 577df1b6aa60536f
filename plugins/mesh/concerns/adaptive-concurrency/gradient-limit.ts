export interface GradientOptions {
  readonly initialLimit: number
  readonly minLimit: number
  readonly maxLimit: number
  readonly tolerance: number
  readonly window: number
}

/** A window with fewer samples is extended: the mean of fewer is not reliable. */
const leastSamples = 10
/** Weight of each new estimate of the limit. */
const smoothing = 0.2
/** Weight of a window in the long-term mean: that of an average over 600 windows. */
const weight = 2 / 601
/** First windows, which have equal weights, so that the very first does not dominate the mean for minutes. */
const warmUp = 10

/**
 * Concurrency limit that adapts to latency, like Netflix's Gradient2. If the mean latency of the last window exceeds
 * the long-term mean by more than the tolerance, a queue is building up at the service: the limit shrinks by their
 * ratio, at most by half. Otherwise it grows by its square root, the room for a burst.
 */
export class GradientLimit {
  readonly #options: GradientOptions
  #limit: number
  /** Long-term mean latency in milliseconds; null before the first window. */
  longMs: number | null = null
  /** Mean latency of the last window in milliseconds; null before the first window. */
  shortMs: number | null = null
  #windowEnd: number | null = null
  #windows = 0
  #sum = 0
  #samples = 0
  #mostInFlight = 0

  constructor(options: GradientOptions) {
    this.#options = options
    this.#limit = clamp(options.initialLimit, options)
  }

  get limit(): number {
    return Math.floor(this.#limit)
  }

  /** Adds the latency of a response, with the number of attempts in flight at its end. */
  sample(nowMs: number, latencyMs: number, inFlight: number): void {
    this.#sum += latencyMs
    this.#samples++
    if (inFlight > this.#mostInFlight) this.#mostInFlight = inFlight
    this.#windowEnd ??= nowMs + this.#options.window
    if (nowMs < this.#windowEnd || this.#samples < leastSamples) return
    this.#update(this.#sum / this.#samples)
    this.#windowEnd = nowMs + this.#options.window
    this.#sum = this.#samples = this.#mostInFlight = 0
  }

  #update(short: number): void {
    this.#windows++
    let long = this.longMs ?? short
    long += (short - long) * (this.#windows <= warmUp ? 1 / this.#windows : weight)
    // After a long overload, let the long-term mean fall faster.
    if (long > short * 2) long *= 0.95
    this.shortMs = short
    this.longMs = long
    // Latency does not depend on the limit if less than half of it was used.
    if (this.#mostInFlight < this.#limit / 2) return
    const gradient = short === 0 ? 1 : Math.max(0.5, Math.min(1, (this.#options.tolerance * long) / short))
    const estimate = this.#limit * gradient + Math.sqrt(this.#limit)
    this.#limit = clamp(this.#limit * (1 - smoothing) + estimate * smoothing, this.#options)
  }
}

function clamp(limit: number, { minLimit, maxLimit }: GradientOptions): number {
  return Math.max(minLimit, Math.min(maxLimit, limit))
}
