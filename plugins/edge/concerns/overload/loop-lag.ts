const periodMs = 500
/** A timer that fires this much too late stands for an overloaded process, not for a pause of the garbage collector. */
const lateMs = 1000
/** So many late ones in a row: a single block is over when it is seen, and needs no shedding. */
const mostLate = 3

/** Detects that the event loop lags: every iteration takes so long that all requests wait for seconds. */
export class LoopLag {
  isLagging = false
  readonly #onChange: (isLagging: boolean) => void
  readonly #timer: NodeJS.Timeout
  #dueMs: number
  #late = 0

  constructor(onChange: (isLagging: boolean) => void, nowMs = performance.now()) {
    this.#onChange = onChange
    this.#dueMs = nowMs + periodMs
    this.#timer = setInterval(() => this.tick(performance.now()), periodMs).unref()
  }

  tick(nowMs: number): void {
    this.#late = nowMs - this.#dueMs > lateMs ? this.#late + 1 : 0
    this.#dueMs = nowMs + periodMs
    const isLagging = this.#late >= mostLate || (this.isLagging && this.#late > 0)
    if (isLagging === this.isLagging) return
    this.isLagging = isLagging
    this.#onChange(isLagging)
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
