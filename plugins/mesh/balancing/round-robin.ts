import type { Instance } from '../types.ts'
import type { BalancingPolicy } from './index.ts'

/**
 * Each in its turn; with weights, nginx's smooth variant, which spreads the turns of a heavy instance
 * (weights 5,1,1 give a a b a c a a, not a a a a a b c).
 */
export const roundRobin: BalancingPolicy = (instances, _options, { random }) => {
  const count = instances.length
  const first = instances[0]?.weight
  const next = instances.every((instance) => instance.weight === first) ? inTurn(instances, random) : smooth(instances)
  return {
    pick(tried) {
      for (let step = 0; step < count; step++) {
        const instance = next()
        if (!tried?.has(instance.endpoint)) return instance
      }
      // With weights the same instance can come up `count` times in a row.
      return instances.find((instance) => !tried?.has(instance.endpoint)) ?? null
    }
  }
}

function inTurn(instances: readonly Instance[], random: () => number): () => Instance {
  // A random start keeps many gateways that see the same snapshot from marching in step.
  let index = Math.floor(random() * instances.length)
  return () => {
    index = (index + 1) % instances.length
    return instances[index]!
  }
}

function smooth(instances: readonly Instance[]): () => Instance {
  const total = instances.reduce((sum, instance) => sum + instance.weight, 0)
  const current = new Array<number>(instances.length).fill(0)
  return () => {
    let best = 0
    for (let i = 0; i < instances.length; i++) {
      current[i]! += instances[i]!.weight
      if (current[i]! > current[best]!) best = i
    }
    current[best]! -= total
    return instances[best]!
  }
}
