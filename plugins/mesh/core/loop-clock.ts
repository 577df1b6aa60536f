const periodMs = 100
/** Lateness that is ordinary: other work of the same event-loop iteration. */
const toleratedMs = 100
/** A block from which on it is reported. */
const reportedMs = 1000

/**
 * A clock that stands still while the event loop is blocked. By any other, an instance would seem slow whose response
 * has long been in the kernel, unread. A timer notices blocks; while one lasts, `now()` itself sees that the timer is
 * overdue.
 */
export class LoopClock {
  readonly #onBlock: (blockedMs: number) => void
  readonly #wallMs: () => number
  #dueMs = Number.POSITIVE_INFINITY
  #stalledMs = 0
  #timer: NodeJS.Timeout | undefined

  /** `onBlock` is called after each block of a second or more. */
  constructor(onBlock: (blockedMs: number) => void, wallMs = () => performance.now()) {
    this.#onBlock = onBlock
    this.#wallMs = wallMs
  }

  start(): void {
    if (this.#timer !== undefined) return
    this.#dueMs = this.#wallMs() + periodMs
    this.#timer = setInterval(this.tick, periodMs).unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#dueMs = Number.POSITIVE_INFINITY
  }

  readonly tick = (): void => {
    const wallMs = this.#wallMs()
    const blockedMs = this.#excessMs(wallMs)
    this.#stalledMs += blockedMs
    this.#dueMs = wallMs + periodMs
    if (blockedMs >= reportedMs) this.#onBlock(blockedMs)
  }

  /** Milliseconds, never running backwards. */
  readonly now = (): number => {
    const wallMs = this.#wallMs()
    return wallMs - this.#stalledMs - this.#excessMs(wallMs)
  }

  /** Returns for how long the event loop has been blocked so far, in all. */
  readonly stalledMs = (): number => this.#stalledMs + this.#excessMs(this.#wallMs())

  #excessMs(wallMs: number): number {
    return Math.max(0, wallMs - this.#dueMs - toleratedMs)
  }
}
