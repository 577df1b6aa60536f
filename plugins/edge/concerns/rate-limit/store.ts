/** Counter of requests in fixed windows in this process, in the form that @fastify/rate-limit calls. */
import type { Clock } from '../../../clock.ts'
import { systemClock } from '../../../clock.ts'
import { algorithms } from './algorithms.ts'
import { Entries } from './entries.ts'

/** Requests in the window so far, this one included, and the milliseconds until it ends. */
export interface Count {
  current: number
  ttl: number
}

/** Milliseconds, rounded up: the difference of two times in floating point may be a little more than the window. */
export const rest = (ms: number): number => Math.ceil(ms - 0.01)

export class LocalCounter {
  readonly #entries: Entries
  readonly #now: Clock['now']

  constructor(window: number, now: Clock['now'] = systemClock.now, maxKeys?: number) {
    this.#entries = new Entries(algorithms['fixed-window'], { max: 0, burst: 0, window }, maxKeys)
    this.#now = now
  }

  /** Shows a request that `admit` has refused as counted, so that @fastify/rate-limit refuses it. Counts nothing. */
  incr(key: string, done: (error: Error | null, count: Count) => void): void {
    const now = this.#now()
    const { value, until } = this.#entries.get(key, now)
    done(null, { current: value + 1, ttl: rest(until - now) })
  }

  /** Counts a request if that is within the limit; otherwise counts nothing and returns null. */
  admit(key: string, max: number): Count | null {
    const now = this.#now()
    const entry = this.#entries.get(key, now)
    if (entry.value >= max) return null
    entry.value++
    return { current: entry.value, ttl: rest(entry.until - now) }
  }
}
