import type { Balancer, Instance } from '../types.ts'
import { firstUntried, weightedSampler } from './weighted.ts'

/** Any instance, by weight. */
export function random(instances: readonly Instance[], random: () => number): Balancer {
  const sample = weightedSampler(instances, random)
  return {
    pick(tried) {
      if (instances.length === 0) return null
      const index = sample()
      return tried === null ? instances[index]! : firstUntried(instances, index, tried)
    }
  }
}
