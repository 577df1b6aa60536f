import type { Instance } from '../core/types.ts'
import { hash32, mix32 } from './hash.ts'
import type { BalancingPolicy } from './policy.ts'
import type { Slots } from './slots.ts'
import { inOrder, slotBalancer } from './slots.ts'

/** Most points on the ring (or twice the configured size, if that is more); beyond this, instances get fewer points. */
const mostPoints = 524_288

/**
 * Ketama's ring: each instance has points in proportion to its weight, and a hash belongs to the next point. The number
 * of points of an instance must not depend on the number of others, else keys would move between the remaining
 * instances whenever one joins or leaves. So it is the number that makes `ringSize` with one other instance, and if it
 * must change, it changes by powers of two.
 */
export const ringHash: BalancingPolicy = (instances, options, deps) => {
  const ordered = inOrder(instances)
  const counts = pointCounts(ordered, options.ringSize)
  return slotBalancer(ordered, ring(ordered, counts), options, deps)
}

function pointCounts(instances: readonly Instance[], ringSize: number): number[] {
  const weights = instances.map(({ weight }) => weight || 1)
  const total = weights.reduce((sum, weight) => sum + weight, 0)
  // Round the mean weight to a power of two, which stays the same when the mean changes a little.
  const unit = 2 ** Math.round(Math.log2(total / instances.length))
  let perUnit = ringSize * (instances.length === 1 ? Math.SQRT2 : Math.SQRT1_2)
  while ((total / unit) * perUnit > Math.max(mostPoints, 2 * ringSize) && perUnit > 1) perUnit /= 2
  return weights.map((weight) => Math.ceil((weight / unit) * perUnit))
}

/**
 * Points sorted into buckets by their first bits. They are distributed evenly, so a bucket has one or two: building the
 * ring and looking up a hash take constant time per point.
 */
function ring(instances: readonly Instance[], counts: readonly number[]): Slots {
  const size = counts.reduce((sum, count) => sum + count, 0)
  const shift = Math.max(1, 32 - Math.ceil(Math.log2(size + 1)))
  const buckets = 2 ** (32 - shift)
  const drawn = new Uint32Array(size)
  const starts = new Uint32Array(buckets + 1)
  let at = 0
  for (const [i, { id }] of instances.entries()) {
    const first = hash32(id)
    // The step is odd, so that no two points of an instance coincide.
    const step = hash32(id, 0x9e3779b9) | 1
    for (let point = first, left = counts[i]!; left > 0; left--, point = (point + step) | 0) {
      const place = mix32(point)
      drawn[at++] = place
      starts[(place >>> shift) + 1]!++
    }
  }
  for (let bucket = 0; bucket < buckets; bucket++) starts[bucket + 1]! += starts[bucket]!

  const points = new Uint32Array(size)
  const owners = new Uint32Array(size)
  const ends = starts.slice(0, buckets)
  at = 0
  for (const [owner, count] of counts.entries()) {
    for (let left = count; left > 0; left--) {
      const place = drawn[at++]!
      const bucket = place >>> shift
      let slot = ends[bucket]!++
      // Points of different instances that coincide are in the order of the instances.
      for (const start = starts[bucket]!; slot > start && points[slot - 1]! > place; slot--) {
        points[slot] = points[slot - 1]!
        owners[slot] = owners[slot - 1]!
      }
      points[slot] = place
      owners[slot] = owner
    }
  }

  return {
    owners,
    slotOf(hash) {
      let slot = starts[hash >>> shift]!
      while (slot < size && points[slot]! < hash) slot++
      return slot === size ? 0 : slot
    },
    shares() {
      const shares = new Float64Array(instances.length)
      let before = points[size - 1]! - 2 ** 32
      for (let slot = 0; slot < size; slot++) {
        shares[owners[slot]!]! += (points[slot]! - before) / 2 ** 32
        before = points[slot]!
      }
      return shares
    }
  }
}
