/** Bounds of the time between two looks at the members. */
const longestPeriodMs = 1000
const shortestPeriodMs = 10

/**
 * Looks at its members at regular intervals, with the time since the last look. One timer for all of them costs less
 * than one each that every chunk restarts. It runs while there are members, and keeps no process alive.
 */
export class Sweep<T> {
  readonly #members = new Map<T, number>()
  readonly #periodMs: number
  readonly #look: (member: T, elapsedMs: number) => void
  #timer: NodeJS.Timeout | undefined

  /** `accuracyMs`: the shortest time that is measured with it. */
  constructor(accuracyMs: number, look: (member: T, elapsedMs: number) => void) {
    this.#periodMs = Math.max(shortestPeriodMs, Math.min(longestPeriodMs, accuracyMs / 4))
    this.#look = look
  }

  add(member: T): void {
    this.#members.set(member, performance.now())
    this.#timer ??= setInterval(() => this.#lookAtAll(), this.#periodMs).unref()
  }

  /** Removes a member, also from within a look. */
  delete(member: T): void {
    this.#members.delete(member)
    if (this.#members.size > 0) return
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #lookAtAll(): void {
    const now = performance.now()
    for (const [member, last] of this.#members) {
      this.#members.set(member, now)
      // Time in which the event loop was blocked is not the peer's.
      this.#look(member, Math.min(now - last, 2 * this.#periodMs))
    }
  }
}
