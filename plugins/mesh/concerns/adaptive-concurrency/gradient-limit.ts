export interface GradientOptions {
  readonly initialLimit: number
  readonly minLimit: number
  readonly maxLimit: number
  readonly tolerance: number
  readonly window: number
}

/** Windows with fewer samples go on until they have these: a mean of less says nothing. */
const leastSamples = 10
/** Share of each new estimate that is taken over. */
const smoothing = 0.2
/** Weight of a window in the long-term mean: that of an average over 600. */
const weight = 2 / 601
/** Windows that weigh the same at first, so that none of them does so for minutes. */
const warmUp = 10

/**
 * A limit on concurrency that follows latency, as Netflix's Gradient2 does: where the mean of the last window is
 * above the long-term mean by more than the tolerance, a queue is building up at the service, and the limit shrinks
 * by their ratio, by half at most; else it grows by the room for a burst, the square root of the limit.
 */
export class GradientLimit {
  readonly #options: GradientOptions
  #limit: number
  /** Milliseconds; null until measured. */
  longMs: number | null = null
  /** Of the last window. */
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

  /** An answer's latency, and how many were in flight with it. */
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
    // After a long time of overload, the way back is not to take as long.
    if (long > short * 2) long *= 0.95
    this.shortMs = short
    this.longMs = long
    // Latency says nothing about the limit if half of it was enough.
    if (this.#mostInFlight < this.#limit / 2) return
    const gradient = short === 0 ? 1 : Math.max(0.5, Math.min(1, (this.#options.tolerance * long) / short))
    const estimate = this.#limit * gradient + Math.sqrt(this.#limit)
    this.#limit = clamp(this.#limit * (1 - smoothing) + estimate * smoothing, this.#options)
  }
}

function clamp(limit: number, { minLimit, maxLimit }: GradientOptions): number {
  return Math.max(minLimit, Math.min(maxLimit, limit))
}
