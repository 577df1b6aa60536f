/** Limits of the time between two checks. */
const longestPeriodMs = 1000
const shortestPeriodMs = 10

/**
 * Calls a check for each member at regular intervals, with the time since the last one. One timer for all members costs
 * less than one timer each that every chunk restarts. It runs while there are members, and does not keep the process alive.
 */
export class Sweep<T> {
  readonly #members = new Map<T, number>()
  readonly #periodMs: number
  readonly #check: (member: T, elapsedMs: number) => void
  #timer: NodeJS.Timeout | undefined

  /** `accuracyMs`: the shortest time that the checks measure. */
  constructor(accuracyMs: number, check: (member: T, elapsedMs: number) => void) {
    this.#periodMs = Math.max(shortestPeriodMs, Math.min(longestPeriodMs, accuracyMs / 4))
    this.#check = check
  }

  add(member: T): void {
    this.#members.set(member, performance.now())
    this.#timer ??= setInterval(() => this.#checkAll(), this.#periodMs).unref()
  }

  /** Removes a member, also within a check. */
  delete(member: T): void {
    this.#members.delete(member)
    if (this.#members.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #checkAll(): void {
    const now = performance.now()
    for (const [member, last] of this.#members) {
      this.#members.set(member, now)
      // Capped: time in which the event loop was blocked must not count against the peer.
      this.#check(member, Math.min(now - last, 2 * this.#periodMs))
    }
  }
}
