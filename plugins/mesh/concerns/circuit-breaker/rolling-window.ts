/** Counts of the last `windowMs`, in a ring of buckets: the oldest bucket is dropped as a whole. */
export class RollingWindow {
  total = 0
  failed = 0
  slow = 0
  readonly #bucketMs: number
  readonly #totals: Uint32Array
  readonly #failures: Uint32Array
  readonly #slows: Uint32Array
  /** Number of the newest bucket since the clock's beginning. */
  #newest = 0

  constructor(windowMs: number, buckets = 10) {
    this.#bucketMs = windowMs / buckets
    this.#totals = new Uint32Array(buckets)
    this.#failures = new Uint32Array(buckets)
    this.#slows = new Uint32Array(buckets)
  }

  add(nowMs: number, failed: boolean, slow: boolean): void {
    const slot = this.advance(nowMs)
    this.total++
    this.#totals[slot]!++
    if (failed) {
      this.failed++
      this.#failures[slot]!++
    }
    if (slow) {
      this.slow++
      this.#slows[slot]!++
    }
  }

  /** Drops buckets that are too old, and returns the newest bucket's index in the ring. */
  advance(nowMs: number): number {
    const { length } = this.#totals
    const newest = Math.floor(nowMs / this.#bucketMs)
    if (newest - this.#newest >= length) this.clear()
    else for (let old = this.#newest + 1; old <= newest; old++) this.#empty(old % length)
    if (newest > this.#newest) this.#newest = newest
    return this.#newest % length
  }

  clear(): void {
    this.total = this.failed = this.slow = 0
    for (const ring of [this.#totals, this.#failures, this.#slows]) ring.fill(0)
  }

  #empty(slot: number): void {
    this.total -= this.#totals[slot]!
    this.failed -= this.#failures[slot]!
    this.slow -= this.#slows[slot]!
    this.#totals[slot] = this.#failures[slot] = this.#slows[slot] = 0
  }
}
