/** Time as limits, breakers and the expiry of tokens see it. A gateway under test is given one that can be moved. */
export interface Clock {
  /** Milliseconds that never run backwards. */
  readonly now: () => number
  /** Milliseconds since 1970, as `Date.now()` has them. */
  readonly date: () => number
}

export const systemClock: Clock = { now: () => performance.now(), date: () => Date.now() }

/** Decorator of a server with a clock of its own. */
export const CLOCK = Symbol('jingwei.clock')
