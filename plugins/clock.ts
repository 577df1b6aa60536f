/** Clock of limits, breakers and token expiry. A gateway under test gets one that the test can move. */
export interface Clock {
  /** Milliseconds of a monotonic clock. */
  readonly now: () => number
  /** Milliseconds since 1970, like `Date.now()`. */
  readonly date: () => number
}

export const systemClock: Clock = { now: () => performance.now(), date: () => Date.now() }

/** Decorator of a server with a clock of its own. */
export const CLOCK = Symbol('jingwei.clock')

/** A timer, as Node's `setTimeout` returns it. */
export interface Timer {
  /** Starts its time anew. */
  refresh(): unknown
  /** Does not keep the process alive. */
  unref(): unknown
}

/** Timers that a gateway under test calls by its own clock. */
export interface Timers {
  readonly setTimeout: (callback: () => void, ms: number) => Timer
  readonly clearTimeout: (timer: Timer | undefined) => void
}

export const systemTimers: Timers = {
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer as NodeJS.Timeout | undefined)
}
