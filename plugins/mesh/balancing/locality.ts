import type { Instance, Locality } from '../core/types.ts'

interface Tier {
  all: number
  readonly available: Instance[]
}

/**
 * Own zone, own datacenter, the rest: each tier takes what those before it left, up to its capacity: that is all of
 * it while `threshold` of its instances are available, and less in proportion below (Envoy's priority levels, whose
 * overprovisioning factor 1.4 is a threshold of 71 %). If all together lack capacity, they share the lack. Weights
 * are scaled so that a tier gets its share in sum.
 */
export function localShares(
  available: readonly Instance[],
  all: readonly Instance[],
  locality: Locality,
  threshold: number
): readonly Instance[] {
  const tiers: Tier[] = [0, 1, 2].map(() => ({ all: 0, available: [] }))
  for (const instance of all) tiers[tierOf(instance, locality)]!.all++
  for (const instance of available) tiers[tierOf(instance, locality)]!.available.push(instance)

  let left = 1
  const shared: { instances: readonly Instance[]; share: number; weight: number }[] = []
  for (const tier of tiers) {
    const { available: instances } = tier
    if (instances.length === 0) continue
    const capacity = threshold > 0 ? Math.min(1, instances.length / tier.all / threshold) : 1
    const share = Math.min(left, capacity)
    left -= share
    if (share > 1e-9) shared.push({ instances, share, weight: weightOf(instances) })
  }
  const [first] = shared
  // Scaled to the nearest, whose weights stay as they are; what is lacking, each lacks in proportion.
  return shared.flatMap(({ instances, share, weight }) => {
    const factor = (share * first!.weight) / (first!.share * weight)
    return factor === 1 ? instances : instances.map((instance) => ({ ...instance, weight: instance.weight * factor }))
  })
}

function tierOf({ meta }: Instance, { datacenter, zone }: Locality): 0 | 1 | 2 {
  const theirs = meta['consul-dc'] ?? null
  // Zones of different datacenters may have the same name.
  const elsewhere = datacenter !== null && theirs !== null && theirs !== datacenter
  if (elsewhere) return 2
  if (zone !== null && meta['consul-zone'] === zone) return 0
  return datacenter !== null && theirs === datacenter ? 1 : 2
}

function weightOf(instances: readonly Instance[]): number {
  return instances.reduce((sum, { weight }) => sum + weight, 0)
}
