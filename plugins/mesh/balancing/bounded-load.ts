import type { Endpoint, Instance } from '../core/types.ts'

/** Up to so many addresses are counted anew for each pick that asks; of more, one in so many picks counts. */
const countedEachTime = 256

/**
 * Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam): an instance takes at most `maxLoad` times
 * its share of the attempts in flight, the new one included, so that a popular key overflows to the next instance
 * instead of drowning its own. Somewhere there is always room, as long as `maxLoad` is at least 1.
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
    // An address that is listed twice has room for both.
    const shares = new Map<Endpoint, number>()
    for (const { endpoint, weight } of instances) {
      const share = whole > 0 ? weight / whole : 1 / instances.length
      shares.set(endpoint, (shares.get(endpoint) ?? 0) + share)
    }
    this.#shares = shares
    this.#endpoints = [...shares.keys()]
    this.#every = Math.max(1, Math.floor(shares.size / countedEachTime))
  }

  /** To be called before each pick. */
  refresh(): void {
    if (this.#uses++ % this.#every !== 0) {
      this.#total++ // what the pick before has become
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
    // A bound that is whole must not become one more by the last bit of a product.
    return Math.ceil(this.#maxLoad * (this.#total + 1) * this.#shares.get(endpoint)! - 1e-9)
  }
}
