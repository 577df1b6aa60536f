import type { Clock, Timer, Timers } from '../clock.ts'

/** The longest time that Node's timers take. */
const mostMs = 2 ** 31 - 1

/** A clock that runs at its usual pace and can be moved forward. */
export class TestClock implements Clock {
  #aheadMs = 0
  readonly #armed = new Set<TestTimer>()

  /** Milliseconds that never run backwards. */
  readonly now = (): number => performance.now() + this.#aheadMs

  /** Milliseconds since 1970. */
  readonly date = (): number => Date.now() + this.#aheadMs

  /** Timers for the gateway and for the delays of scripted responses. */
  readonly timers: Timers = {
    setTimeout: (callback, ms) => new TestTimer(this.#armed, this.now, callback, ms),
    clearTimeout: (timer) => (timer as TestTimer | undefined)?.clear()
  }

  /** Moves the clock forward. Timers that become due are called in their order, before this returns. */
  advance(ms: number): void {
    if (!(ms >= 0 && ms < Number.POSITIVE_INFINITY)) {
      throw new RangeError(`clock.advance takes milliseconds, 0 or more; found ${ms}`)
    }
    const aheadMs = this.#aheadMs + ms
    const targetMs = this.now() + ms
    for (let next = this.#dueUntil(targetMs); next !== undefined; next = this.#dueUntil(targetMs)) {
      this.#aheadMs = Math.min(aheadMs, this.#aheadMs + Math.max(0, next.dueMs - this.now()))
      next.fire()
    }
    this.#aheadMs = aheadMs
  }

  /** Cancels all timers. */
  close(): void {
    for (const timer of this.#armed) timer.clear()
  }

  #dueUntil(targetMs: number): TestTimer | undefined {
    let first: TestTimer | undefined
    for (const timer of this.#armed) {
      if (timer.dueMs <= targetMs && (first === undefined || timer.dueMs < first.dueMs)) first = timer
    }
    return first
  }
}

/** A timer that Node calls after its time, or the clock earlier. */
class TestTimer implements Timer {
  dueMs = 0
  readonly #armed: Set<TestTimer>
  readonly #now: () => number
  readonly #callback: () => void
  readonly #ms: number
  #real: NodeJS.Timeout
  #isRef = true
  #isCleared = false

  constructor(armed: Set<TestTimer>, now: () => number, callback: () => void, ms: number) {
    this.#armed = armed
    this.#now = now
    this.#callback = callback
    // As Node's timers: an interval of 0 would keep `advance` in its loop.
    this.#ms = Math.max(1, ms)
    this.#real = this.#arm()
  }

  #arm(): NodeJS.Timeout {
    this.dueMs = this.#now() + this.#ms
    this.#armed.add(this)
    const real = setTimeout(() => this.fire(), Math.min(this.#ms, mostMs))
    if (!this.#isRef) real.unref()
    return real
  }

  fire(): void {
    this.#disarm()
    this.#callback()
  }

  #disarm(): void {
    clearTimeout(this.#real)
    this.#armed.delete(this)
  }

  /** Has no effect on a timer that was cleared, as with Node's. */
  refresh(): this {
    if (this.#isCleared) return this
    this.#disarm()
    this.#real = this.#arm()
    return this
  }

  unref(): this {
    this.#isRef = false
    this.#real.unref()
    return this
  }

  clear(): void {
    this.#isCleared = true
    this.#disarm()
  }
}
