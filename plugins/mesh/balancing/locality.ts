import type { Instance, Locality } from '../core/types.ts'

interface Tier {
  all: number
  readonly available: Instance[]
}

/**
 * Scales weights by locality: own zone, own datacenter, the rest. Each tier takes the traffic that earlier tiers left,
 * up to its capacity: all of it while `threshold` of its instances are available, proportionally less below that.
 * (Envoy's priority levels, whose overprovisioning factor 1.4 is a threshold of 71 %.) If the total capacity is too
 * low, all tiers take proportionally more. Weights are scaled so that their sum in a tier is its share.
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
  // Scale relative to the nearest tier, whose weights stay; a lack of capacity is distributed proportionally.
  return shared.flatMap(({ instances, share, weight }) => {
    const factor = (share * first!.weight) / (first!.share * weight)
    return factor === 1 ? instances : instances.map((instance) => ({ ...instance, weight: instance.weight * factor }))
  })
}

function tierOf({ meta }: Instance, { datacenter, zone }: Locality): 0 | 1 | 2 {
  const theirs = meta['consul-dc'] ?? meta.datacenter ?? null
  // Zones in different datacenters may have the same name.
  const elsewhere = datacenter !== null && theirs !== null && theirs !== datacenter
  if (elsewhere) return 2
  if (zone !== null && (meta['consul-zone'] ?? meta.zone) === zone) return 0
  return datacenter !== null && theirs === datacenter ? 1 : 2
}

function weightOf(instances: readonly Instance[]): number {
  return instances.reduce((sum, { weight }) => sum + weight, 0)
}
