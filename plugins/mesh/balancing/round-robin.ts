import type { Instance } from '../core/types.ts'
import { describer, sharesByWeight } from './describe.ts'
import type { BalancingPolicy } from './policy.ts'

/** Most instances for which a scan of all is used: as fast as a heap, and smoother. */
const few = 64

/** Picks each instance in turn; with weights, in proportion to them and evenly spread. */
export const roundRobin: BalancingPolicy = (instances, _options, { random }) => {
  const count = instances.length
  const first = instances[0]?.weight
  const even = instances.every((instance) => instance.weight === first)
  const next = even ? inTurn(instances, random) : count <= few ? smooth(instances) : whenDue(instances, random)
  const share = sharesByWeight(instances)
  return {
    pick(tried) {
      for (let step = 0; step < count; step++) {
        const instance = next()
        if (!tried?.has(instance.endpoint)) return instance
      }
      // With weights, the same instance can come up `count` times in a row.
      return instances.find((instance) => !tried?.has(instance.endpoint)) ?? null
    },
    describe: describer(instances, (instance) => ({ share: share(instance) }))
  }
}

function inTurn(instances: readonly Instance[], random: () => number): () => Instance {
  // Random start, so that gateways with the same snapshot do not pick in step.
  let index = Math.floor(random() * instances.length)
  return () => {
    index = (index + 1) % instances.length
    return instances[index]!
  }
}

/** Smooth weighted round robin, as in nginx: weights 5, 1, 1 give a a b a c a a, not a a a a a b c. */
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

/** Earliest deadline first, as in Envoy: each instance is due every 1 / weight; a heap finds the next. */
function whenDue(instances: readonly Instance[], random: () => number): () => Instance {
  const heap = instances
    .map((instance) => ({ instance, interval: 1 / instance.weight, due: random() / instance.weight }))
    .sort((a, b) => a.due - b.due)
  return () => {
    const top = heap[0]!
    top.due += top.interval
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child + 1 < heap.length && heap[child + 1]!.due < heap[child]!.due) child++
      if (child >= heap.length || heap[child]!.due >= top.due) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = top
    return top.instance
  }
}
