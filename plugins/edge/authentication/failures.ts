import { FifoMap } from 'toad-cache'
import { networkOf } from '../protocol/client-address.ts'

export interface FailureOptions {
  readonly max: number
  readonly window: number
}

/** Addresses that are counted at a time. With more, the one that was counted first is forgotten. */
const MOST_ADDRESSES = 50_000

/** Failures without a success after which an address is taken for one that guesses. */
const MOST_INNOCENT = 8

interface Count {
  failures: number
  hasSuccess: boolean
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
    const count = this.#current(address)
    return count === null || count.failures < this.#max ? 0 : count.endsMs - this.#now()
  }

  /** Counts a failed attempt. */
  add(address: string): void {
    const count = this.#current(address)
    if (count !== null) count.failures++
    else {
      const endsMs = this.#now() + this.#windowMs
      this.#counts.set(networkOf(address), { failures: 1, hasSuccess: false, endsMs })
    }
  }

  /**
   * Counts an attempt above those that an address may have at a time: as a failure, if all that it has tried before was wrong.
   * Many users behind one address log in at the same time, too, but not all with wrong credentials.
   */
  addExcess(address: string): void {
    const count = this.#current(address)
    if (count !== null && !count.hasSuccess && count.failures >= MOST_INNOCENT) count.failures++
  }

  addSuccess(address: string): void {
    const count = this.#current(address)
    if (count !== null) count.hasSuccess = true
  }

  #current(address: string): Count | null {
    const count = this.#counts.get(networkOf(address))
    return count !== undefined && this.#now() < count.endsMs ? count : null
  }
}
