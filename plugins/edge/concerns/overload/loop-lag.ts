const periodMs = 500
/** Lateness of a timer that indicates an overloaded process rather than a pause of the garbage collector. */
const lateMs = 1000
/** Late timers in a row before load is shed: a single long block is over when its timer fires. */
const lateTimers = 3

/** Detects a lagging event loop: every iteration takes so long that all requests wait for seconds. */
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
    const isLagging = this.#late >= lateTimers || (this.isLagging && this.#late > 0)
    if (isLagging === this.isLagging) return
    this.isLagging = isLagging
    this.#onChange(isLagging)
  }

  close(): void {
    clearInterval(this.#timer)
  }
}
