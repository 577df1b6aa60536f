import type { Endpoint, Instance, MeshDeps } from '../core/types.ts'
import { LoadBound } from './bounded-load.ts'
import type { Description } from './describe.ts'
import { describer, rounded } from './describe.ts'
import type { Choice } from './policy.ts'
import type { BalanceOptions } from './schema.ts'
import { firstUntried } from './weighted.ts'

/** A circle of slots, each owned by an instance. */
export interface Slots {
  /** Index of the instance that owns the slot. */
  readonly owners: Uint32Array
  /** Returns the slot of a hash. */
  slotOf(hash: number): number
  /** Returns the share of all hashes that each instance owns. */
  shares(): Float64Array
}

/** Balancer of the hashing policies: picks the first eligible owner from the slot of the hash on. */
export function slotBalancer(
  instances: readonly Instance[],
  slots: Slots,
  { maxLoad }: BalanceOptions,
  { random }: Pick<MeshDeps, 'random'>
): Choice {
  const { owners } = slots
  const bound = maxLoad === undefined || instances.length < 2 ? null : new LoadBound(instances, maxLoad)
  const addresses = new Set(instances.map(({ endpoint }) => endpoint)).size
  let census: { shares: Float64Array; counts: Uint32Array } | null = null

  function walk(from: number, tried: ReadonlySet<Endpoint> | null): Instance | null {
    if (bound === null && tried === null) return instances[owners[from]!]!
    if (tried === null || tried.size < addresses) {
      for (let slot = from, left = owners.length; left > 0; left--) {
        const instance = instances[owners[slot]!]!
        const { endpoint } = instance
        if (tried?.has(endpoint) !== true && (bound === null || bound.admits(endpoint))) return instance
        if (++slot === owners.length) slot = 0
      }
    }
    // All instances below the bound were tried.
    return firstUntried(instances, owners[from]!, tried ?? new Set())
  }

  return {
    pick(tried, hash) {
      if (instances.length === 0) return null
      bound?.refresh()
      // A call without a key goes to a random instance.
      return walk(slots.slotOf(hash ?? Math.floor(random() * 2 ** 32)), tried)
    },
    describe: describer(instances, ({ endpoint }, index): Description => {
      census ??= { shares: slots.shares(), counts: countsOf(owners, instances.length) }
      const { shares, counts } = census
      const description = { share: rounded(shares[index]!), slots: counts[index]!, active: endpoint.active }
      return bound === null ? description : { ...description, limit: bound.limit(endpoint) }
    })
  }
}

function countsOf(owners: Uint32Array, instances: number): Uint32Array {
  const counts = new Uint32Array(instances)
  for (const owner of owners) counts[owner]!++
  return counts
}

/** Sorts instances by id, so that all gateways have the same order. */
export function inOrder(instances: readonly Instance[]): Instance[] {
  return instances.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0))
}
