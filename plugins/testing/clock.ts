import type { Clock } from '../clock.ts'

interface Timer {
  readonly dueMs: number
  readonly callback: () => void
  readonly real: NodeJS.Timeout
}

/** A clock that runs at its usual pace and can be moved forward. */
export class TestClock implements Clock {
  #aheadMs = 0
  readonly #timers = new Set<Timer>()

  /** Milliseconds that never run backwards. */
  readonly now = (): number => performance.now() + this.#aheadMs

  /** Milliseconds since 1970. */
  readonly date = (): number => Date.now() + this.#aheadMs

  /** Moves the clock forward. Timers of the clock that become due are called in their order, before this returns. */
  advance(ms: number): void {
    if (!(ms >= 0 && ms < Number.POSITIVE_INFINITY)) {
      throw new RangeError(`clock.advance takes milliseconds, 0 or more; found ${ms}`)
    }
    const aheadMs = this.#aheadMs + ms
    const targetMs = this.now() + ms
    for (let next = this.#nextUntil(targetMs); next !== undefined; next = this.#nextUntil(targetMs)) {
      this.#aheadMs = Math.min(aheadMs, this.#aheadMs + Math.max(0, next.dueMs - this.now()))
      this.#end(next)
      next.callback()
    }
    this.#aheadMs = aheadMs
  }

  /** Calls a function after a time on this clock. Returns a function that cancels it. */
  after(ms: number, callback: () => void): () => void {
    const fire = () => {
      this.#end(timer)
      callback()
    }
    const timer: Timer = { dueMs: this.now() + ms, callback, real: setTimeout(fire, Math.min(ms, mostMs)) }
    this.#timers.add(timer)
    return () => this.#end(timer)
  }

  #nextUntil(targetMs: number): Timer | undefined {
    let first: Timer | undefined
    for (const timer of this.#timers) {
      if (timer.dueMs <= targetMs && (first === undefined || timer.dueMs < first.dueMs)) first = timer
    }
    return first
  }

  #end(timer: Timer): void {
    this.#timers.delete(timer)
    clearTimeout(timer.real)
  }

  /** Cancels all timers. */
  close(): void {
    for (const timer of this.#timers) this.#end(timer)
  }
}

/** The longest time that Node's timers take. */
const mostMs = 2 ** 31 - 1
