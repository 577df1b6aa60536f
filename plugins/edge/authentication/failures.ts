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
  /** Time until which some address may be refused. */
  #limitedUntilMs = 0

  constructor({ max, window }: FailureOptions, now: () => number) {
    this.#max = max
    this.#windowMs = window
    this.#now = now
  }

  /** True if no address is refused. */
  get limitsNone(): boolean {
    if (this.#limitedUntilMs === 0) return true
    if (this.#now() < this.#limitedUntilMs) return false
    this.#limitedUntilMs = 0
    return true
  }

  get isEmpty(): boolean {
    return this.#counts.size === 0
  }

  /** Returns the milliseconds for which credentials from an address are refused; 0 if they are not. */
  waitOf(address: string): number {
    const count = this.#current(address)
    return count === null || count.failures < this.#max ? 0 : count.endsMs - this.#now()
  }

  /** Counts a failed attempt. */
  add(address: string): void {
    let count = this.#current(address)
    if (count === null) {
      count = { failures: 0, hasSuccess: false, endsMs: this.#now() + this.#windowMs }
      this.#counts.set(networkOf(address), count)
    }
    this.#fail(count)
  }

  /**
   * Counts an attempt above those that an address may have at a time: as a failure, if all that it has tried before was wrong.
   * Many users behind one address log in at the same time, too, but not all with wrong credentials.
   */
  addExcess(address: string): void {
    const count = this.#current(address)
    if (count !== null && !count.hasSuccess && count.failures >= MOST_INNOCENT) this.#fail(count)
  }

  addSuccess(address: string): void {
    const count = this.#current(address)
    if (count !== null) count.hasSuccess = true
  }

  #fail(count: Count): void {
    count.failures++
    if (count.failures >= this.#max) this.#limitedUntilMs = Math.max(this.#limitedUntilMs, count.endsMs)
  }

  #current(address: string): Count | null {
    const count = this.#counts.get(networkOf(address))
    return count !== undefined && this.#now() < count.endsMs ? count : null
  }
}
