import type { BalancingPolicy } from './index.ts'
import { firstUntried, weightedSampler } from './weighted.ts'

/**
 * Power of two choices: draw two by weight, take the one with fewer requests in flight for its weight, the
 * first drawn if they are level. Nearly as even as comparing all, without the herd that all-comparing
 * gateways form around the one idle instance.
 */
export const leastRequest: BalancingPolicy = (instances, _options, { random }) => {
  const sample = weightedSampler(instances, random)
  const count = instances.length
  return {
    pick(tried) {
      if (count <= 1) return count === 1 && !tried?.has(instances[0]!.endpoint) ? instances[0]! : null
      const i = sample()
      let j = sample()
      if (j === i) j = (j + 1) % count
      const a = instances[i]!
      const b = instances[j]!
      const better = a.endpoint.active * b.weight <= b.endpoint.active * a.weight ? a : b
      if (tried === null || !tried.has(better.endpoint)) return better
      const other = better === a ? b : a
      return tried.has(other.endpoint) ? firstUntried(instances, i, tried) : other
    }
  }
}
