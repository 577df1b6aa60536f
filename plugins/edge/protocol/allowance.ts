/**
 * Time for which the gateway waits for a slow peer. It decreases while the gateway waits, and each transferred byte adds
 * 1/rate seconds, up to the full time. A peer that is slower than the rate uses it up, however regularly it transfers a
 * byte. Without a rate, any byte restores the full time.
 */
export class Allowance {
  readonly #fullMs: number
  #msPerByte = Number.POSITIVE_INFINITY
  #leftMs: number

  /** `rate` is in bytes per second; `false` for none. */
  constructor(fullMs: number, rate: number | false) {
    this.#fullMs = fullMs
    this.#leftMs = fullMs
    this.rate = rate
  }

  set rate(rate: number | false) {
    this.#msPerByte = rate === false ? Number.POSITIVE_INFINITY : 1000 / rate
  }

  /** Subtracts waiting time, adds the time for transferred bytes, and returns the time that is left. */
  spend(ms: number, bytes: number): number {
    const gained = bytes > 0 ? bytes * this.#msPerByte : 0
    this.#leftMs = Math.min(this.#fullMs, this.#leftMs - ms + gained)
    return this.#leftMs
  }
}
