/** Units that this node has taken from Redis and not used yet, by key. */
import { FifoMap } from 'toad-cache'

interface Lease {
  left: number
  /** Time after which the rest is void. */
  until: number
  /** State of the limit in Redis when the lease was given: units left, and the time at which the window ends or the bucket is full. */
  readonly remaining: number
  readonly resetAt: number
}

export class Leases {
  /** Units of a lease. */
  readonly size: number
  // A lease that is dropped was used in vain: the limit is stricter, not wider.
  readonly #leases = new FifoMap<Lease>(10_000)
  /** Keys for which Redis is being asked: the other requests meanwhile ask for themselves only. */
  readonly #asked = new Set<string>()

  constructor(size: number) {
    this.size = size
  }

  /** Takes units of the lease of a key; null if it has not enough. */
  take(key: string, units: number, now: number): Readonly<Lease> | null {
    const lease = this.#leases.get(key)
    if (lease === undefined || lease.until <= now || lease.left < units) return null
    lease.left -= units
    return lease
  }

  giveBack(key: string, units: number): void {
    const lease = this.#leases.get(key)
    if (lease !== undefined) lease.left += units
  }

  /** Returns the units to ask for: those of a lease, or of the request alone while a lease is being asked for. */
  wanted(key: string, units: number): number {
    if (this.size <= units || this.#asked.has(key)) return units
    this.#asked.add(key)
    return Math.max(units, this.size)
  }

  /** Ends the question for a lease. */
  answered(key: string): void {
    this.#asked.delete(key)
  }

  /** Adds a lease to that of a key. */
  add(key: string, added: Readonly<Lease>, now: number): void {
    const before = this.#leases.get(key)
    if (before === undefined || before.until <= now) this.#leases.set(key, { ...added })
    else this.#leases.set(key, { ...added, left: before.left + added.left, until: Math.min(before.until, added.until) })
  }
}
