const windowMs = 10_000
/** Retries per window that are allowed whatever the traffic; else a service with few calls could not retry at all. */
const leastPerWindow = 100

/**
 * Limits the traffic that retries add to a service: a share of the calls of the last ten seconds, plus ten per second.
 * It counts over a window rather than in flight: if an instance dies with all its requests at once, these may be
 * retried within the budget of the time before, while a service that keeps failing gets no retry storm. (The retry
 * budget of Finagle and Linkerd; a sliding window made of two fixed ones.)
 */
export class RetryBudget {
  #startedMs = Number.NEGATIVE_INFINITY
  #calls = 0
  #retries = 0
  #callsBefore = 0
  #retriesBefore = 0

  call(nowMs: number): void {
    this.#roll(nowMs)
    this.#calls++
  }

  /** Returns whether one more retry is within `share` of the calls; if so, it is counted. */
  take(share: number, nowMs: number): boolean {
    this.#roll(nowMs)
    const before = 1 - (nowMs - this.#startedMs) / windowMs
    const calls = this.#calls + this.#callsBefore * before
    const retries = this.#retries + this.#retriesBefore * before
    if (retries + 1 > leastPerWindow + calls * share) return false
    this.#retries++
    return true
  }

  #roll(nowMs: number): void {
    const elapsedMs = nowMs - this.#startedMs
    if (elapsedMs < windowMs) return
    const adjacent = elapsedMs < 2 * windowMs
    this.#callsBefore = adjacent ? this.#calls : 0
    this.#retriesBefore = adjacent ? this.#retries : 0
    this.#calls = 0
    this.#retries = 0
    this.#startedMs = adjacent ? this.#startedMs + windowMs : nowMs
  }
}
