import { describer, sharesByWeight } from './describe.ts'
import type { BalancingPolicy } from './policy.ts'
import { firstUntried, weightedSampler } from './weighted.ts'

/** Picks any instance, by weight. */
export const random: BalancingPolicy = (instances, _options, { random }) => {
  const sample = weightedSampler(instances, random)
  const share = sharesByWeight(instances)
  return {
    pick(tried) {
      if (instances.length === 0) return null
      const index = sample()
      return tried === null ? instances[index]! : firstUntried(instances, index, tried)
    },
    describe: describer(instances, (instance) => ({ share: share(instance) }))
  }
}
