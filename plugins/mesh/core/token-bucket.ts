/** A token bucket: it gains tokens at a steady rate, and holds at most `burst` of them. */
export class TokenBucket {
  readonly #burst: number
  readonly #intervalMs: number
  readonly #now: () => number
  #tokens: number
  #at: number

  /** Creates a full bucket; `intervalMs` is the time between two tokens. */
  constructor(burst: number, intervalMs: number, now: () => number) {
    this.#burst = burst
    this.#intervalMs = intervalMs
    this.#now = now
    this.#tokens = burst
    this.#at = now()
  }

  /** Number of tokens; negative if queued attempts have taken tokens in advance. */
  get tokens(): number {
    const now = this.#now()
    this.#tokens = Math.min(this.#burst, this.#tokens + (now - this.#at) / this.#intervalMs)
    this.#at = now
    return this.#tokens
  }

  /**
   * Returns the wait for the next token or, with `promised` tokens taken in advance, for the first of these; 0: now.
   */
  waitMs(promised = 0): number {
    const missing = 1 - promised - this.tokens
    // Ignore rounding errors of the division.
    return missing <= 1e-9 ? 0 : missing * this.#intervalMs
  }

  /** Takes a token, in advance if there is none, and returns the wait for it in whole milliseconds. */
  reserve(): number {
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
