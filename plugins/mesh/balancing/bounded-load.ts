import type { Endpoint, Instance } from '../core/types.ts'

/** Most addresses whose load is counted for each pick; with more, it is counted once in this many picks. */
const countedEachTime = 256

/**
 * Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam): an instance takes at most `maxLoad` times
 * its share of the attempts in flight, with the new one, so that a popular key overflows to the next instance. With
 * `maxLoad` of at least 1, one instance always has room.
 */
export class LoadBound {
  readonly #maxLoad: number
  readonly #endpoints: readonly Endpoint[]
  readonly #shares: ReadonlyMap<Endpoint, number>
  readonly #every: number
  #total = 0
  #uses = 0

  constructor(instances: readonly Instance[], maxLoad: number) {
    this.#maxLoad = maxLoad
    const whole = instances.reduce((sum, { weight }) => sum + weight, 0)
    // An address that is listed twice has the sum of both shares.
    const shares = new Map<Endpoint, number>()
    for (const { endpoint, weight } of instances) {
      const share = whole > 0 ? weight / whole : 1 / instances.length
      shares.set(endpoint, (shares.get(endpoint) ?? 0) + share)
    }
    this.#shares = shares
    this.#endpoints = [...shares.keys()]
    this.#every = Math.max(1, Math.floor(shares.size / countedEachTime))
  }

  /** Updates the total load; must be called before each pick. */
  refresh(): void {
    if (this.#uses++ % this.#every !== 0) {
      this.#total++ // the attempt of the previous pick
      return
    }
    let total = 0
    for (const endpoint of this.#endpoints) total += endpoint.active
    this.#total = total
  }

  admits(endpoint: Endpoint): boolean {
    return endpoint.active < this.limit(endpoint)
  }

  limit(endpoint: Endpoint): number {
    // Rounding errors must not raise an integral bound by one.
    return Math.ceil(this.#maxLoad * (this.#total + 1) * this.#shares.get(endpoint)! - 1e-9)
  }
}
