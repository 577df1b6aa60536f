/**
 * Time that a slow peer is waited for. It runs while the peer is due to do something, and each byte that moves buys
 * 1/rate seconds more, up to the full time. A peer that moves bytes more slowly than the rate runs out of it, however
 * regularly it moves one. Without a rate, any byte buys the full time.
 */
export class Allowance {
  readonly #fullMs: number
  readonly #msPerByte: number
  #leftMs: number

  /** `rate` is in bytes per second; `false` for none. */
  constructor(fullMs: number, rate: number | false) {
    this.#fullMs = fullMs
    this.#msPerByte = rate === false ? Number.POSITIVE_INFINITY : 1000 / rate
    this.#leftMs = fullMs
  }

  /** Takes time in which the peer was waited for, adds what its bytes buy, and returns what is left. */
  spend(ms: number, bytes: number): number {
    const bought = bytes > 0 ? bytes * this.#msPerByte : 0
    this.#leftMs = Math.min(this.#fullMs, this.#leftMs - ms + bought)
    return this.#leftMs
  }
}
