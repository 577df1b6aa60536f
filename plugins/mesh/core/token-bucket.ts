/** A token bucket: tokens come at a steady rate, and up to a burst of them is kept. */
export class TokenBucket {
  readonly #burst: number
  readonly #intervalMs: number
  readonly #now: () => number
  #tokens: number
  #at: number

  /** `intervalMs`: between two tokens. */
  constructor(burst: number, intervalMs: number, now: () => number) {
    this.#burst = burst
    this.#intervalMs = intervalMs
    this.#now = now
    this.#tokens = burst
    this.#at = now()
  }

  /** Below 0 where more were taken than had come: promised to those who wait. */
  get tokens(): number {
    const now = this.#now()
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) / this.#intervalMs)
    this.#at = now
    return this.#tokens
  }

  /** Until there is a token for the next one, or for the first of those to whom `promised` tokens are; 0: now. */
  waitMs(promised = 0): number {
    const missing = 1 - promised - this.tokens
    // A rounding error of the division is no reason to wait.
    return missing <= 1e-9 ? 0 : missing * this.#intervalMs
  }

  /** Takes a token, and returns for how long the taker has to wait for it, in whole milliseconds. */
  takeTurn(): number {
    const waitMs = Math.ceil(this.waitMs())
    this.take()
    return waitMs
  }

  take(): void {
    this.#tokens--
  }

  giveBack(): void {
    this.#tokens++
  }
}
