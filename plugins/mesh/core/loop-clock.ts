const periodMs = 100
/** Delay of the timer that is ordinary: other work of the same event-loop iteration. */
const toleratedMs = 100
/** Shortest block that is reported. */
const reportedMs = 1000

/**
 * A clock that stands still while the event loop is blocked. With any other, an instance would seem slow although its
 * response has long been in the kernel, unread. A timer detects blocks; during one, `now()` sees that the timer is
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

  /** Returns the time in milliseconds; it never goes backwards. */
  readonly now = (): number => {
    const wallMs = this.#wallMs()
    return wallMs - this.#stalledMs - this.#excessMs(wallMs)
  }

  /** Returns the total time for which the event loop has been blocked. */
  readonly stalledMs = (): number => this.#stalledMs + this.#excessMs(this.#wallMs())

  #excessMs(wallMs: number): number {
    return Math.max(0, wallMs - this.#dueMs - toleratedMs)
  }
}
