import { FifoMap } from 'toad-cache'
import { networkOf } from '../protocol/client-address.ts'

export interface FailureOptions {
  readonly max: number
  readonly window: number
}

/** Addresses that are counted at a time. With more, the one that was counted first is forgotten. */
const MOST_ADDRESSES = 50_000

interface Count {
  failures: number
  readonly endsMs: number
}

/**
 * Counts failed attempts to authenticate by address. An attempt that runs is none yet: a caller asks again when it ends, and does
 * not report its outcome if the address is refused by then. So parallel guesses learn no more than successive ones.
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

  /** Returns the milliseconds for which credentials from an address are refused; 0 if they are not. */
  waitOf(address: string): number {
    const count = this.#counts.get(networkOf(address))
    return count === undefined || count.failures < this.#max ? 0 : Math.max(0, count.endsMs - this.#now())
  }

  /** Counts a failed attempt. */
  add(address: string): void {
    const key = networkOf(address)
    const now = this.#now()
    const count = this.#counts.get(key)
    if (count !== undefined && now < count.endsMs) count.failures++
    else this.#counts.set(key, { failures: 1, endsMs: now + this.#windowMs })
  }
}
