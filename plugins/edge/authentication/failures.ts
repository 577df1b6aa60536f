import { FifoMap } from 'toad-cache'
import { networkOf } from '../protocol/client-address.ts'

export interface FailureOptions {
  readonly max: number
  readonly window: number
}

/** Addresses that are counted at a time. With more, the one that was counted first is forgotten. */
const MOST_ADDRESSES = 50_000

interface Count {
  attempts: number
  readonly endsMs: number
}

/**
 * Counts failed attempts to authenticate by address. An attempt counts while it runs, so that parallel guesses do not exceed the
 * limit.
 */
export class FailureLimit {
  readonly #max: number
  readonly #windowMs: number
  readonly #now: () => number
  readonly #counts = new FifoMap<Count>(MOST_ADDRESSES)

  constructor({ max, window }: FailureOptions, now: () => number) {
    this.#max = max
    this.#windowMs = window
    this.#now = now
  }

  /** Counts an attempt. Returns a function that uncounts it, or the milliseconds for which the address is refused. */
  begin(address: string): (() => void) | number {
    const key = networkOf(address)
    const now = this.#now()
    let count = this.#counts.get(key)
    if (count === undefined || now >= count.endsMs) {
      count = { attempts: 0, endsMs: now + this.#windowMs }
      this.#counts.set(key, count)
    }
    if (count.attempts >= this.#max) return count.endsMs - now
    count.attempts++
    const own = count
    return () => {
      own.attempts--
      // Clients without failures must not take the places of others.
      if (own.attempts === 0 && this.#counts.get(key) === own) this.#counts.delete(key)
    }
  }
}
