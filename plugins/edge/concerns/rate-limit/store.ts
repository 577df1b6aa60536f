/**
 * Counters of requests, in fixed windows: in this process (`LocalCounter`) or in the Redis that a cluster shares
 * (`SharedCounter`). If Redis does not respond, the node counts on its own, starting from the last count that it saw.
 */
import type { Clock } from '../../../clock.ts'
import { systemClock } from '../../../clock.ts'
import type { Count, RedisLink } from './redis-link.ts'

type Done = (error: Error | null, count?: Count) => void

/** Store in the form that @fastify/rate-limit calls. */
export interface Counter {
  incr(key: string, done: Done, window: number): void
}

interface Window {
  count: number
  end: number
}

export class LocalCounter implements Counter {
  // Two generations instead of an LRU list: memory is bounded too, and a flood of keys costs no more.
  #young = new Map<string, Window>()
  #old = new Map<string, Window>()
  readonly #half: number
  readonly #now: Clock['now']

  constructor(maxKeys = 100_000, now: Clock['now'] = systemClock.now) {
    this.#half = Math.ceil(maxKeys / 2)
    this.#now = now
  }

  incr(key: string, done: Done, window: number): void {
    const now = this.#now()
    const entry = this.#entry(key, now, window)
    entry.count++
    done(null, { current: entry.count, ttl: entry.end - now })
  }

  /** Counts a request if that is within the limit; otherwise counts nothing and returns null. */
  admit(key: string, max: number, window: number): Count | null {
    const now = this.#now()
    const entry = this.#entry(key, now, window)
    if (entry.count >= max) return null
    entry.count++
    return { current: entry.count, ttl: entry.end - now }
  }

  #entry(key: string, now: number, window: number): Window {
    const young = this.#young.get(key)
    if (young !== undefined && young.end > now) return young
    const known = young ?? this.#old.get(key)
    const entry = known !== undefined && known.end > now ? known : { count: 0, end: now + window }
    this.#store(key, entry)
    return entry
  }

  /** Sets a count that was read from Redis. */
  set(key: string, { current, ttl }: Count): void {
    this.#store(key, { count: current, end: this.#now() + ttl })
  }

  #store(key: string, entry: Window): void {
    this.#young.set(key, entry)
    if (this.#young.size < this.#half) return
    this.#old = this.#young
    this.#young = new Map()
  }
}

/** Counter of a route in Redis. */
export class SharedCounter implements Counter {
  readonly #link: RedisLink
  readonly #prefix: string
  readonly #local: LocalCounter
  readonly #onFallback: () => void

  /** `counted` names the routes that count together; `local` counts while Redis does not respond. */
  constructor(link: RedisLink, counted: string, local: LocalCounter, onFallback: () => void) {
    this.#link = link
    this.#prefix = `jingwei:rl:${counted}:`
    this.#local = local
    this.#onFallback = onFallback
  }

  incr(key: string, done: Done, window: number): void {
    this.#link.hit(this.#prefix + key, window, (count) => {
      if (count === null) {
        this.#onFallback()
        this.#local.incr(key, done, window)
      } else {
        this.#local.set(key, count)
        done(null, count)
      }
    })
  }
}
