import type { Instance } from '../core/types.ts'
import { hash32, isPrime } from './hash.ts'
import type { BalancingPolicy } from './policy.ts'
import type { Slots } from './slots.ts'
import { inOrder, slotBalancer } from './slots.ts'

/**
 * Maglev (Eisenbud et al., 2016): a table whose slots the instances take in turn, each by its own permutation. Shares
 * are more even than a ring's; when instances change, a few slots move between others as well. The table should have a
 * hundred times more slots than there are instances.
 */
export const maglev: BalancingPolicy = (instances, options, deps) => {
  const ordered = inOrder(instances)
  return slotBalancer(ordered, table(ordered, nextPrime(options.tableSize)), options, deps)
}

function table(instances: readonly Instance[], size: number): Slots {
  const count = instances.length
  const owners = new Uint32Array(size)
  const taken = new Uint8Array(size)
  const places = new Uint32Array(count)
  const skips = new Uint32Array(count)
  for (const [i, { id }] of instances.entries()) {
    places[i] = hash32(id) % size
    skips[i] = 1 + (hash32(id, 0x9e3779b9) % (size - 1))
  }
  const turns = turnsOf(instances)
  let left = count === 0 ? 0 : size
  for (let round = 1; left > 0; round++) {
    for (let i = 0; i < count && left > 0; i++) {
      // The heaviest instances take a slot in each round, the others in fewer rounds.
      if (turns !== null && Math.floor(round * turns[i]!) === Math.floor((round - 1) * turns[i]!)) continue
      let place = places[i]!
      const skip = skips[i]!
      while (taken[place] === 1) {
        place += skip
        if (place >= size) place -= size
      }
      taken[place] = 1
      owners[place] = i
      places[i] = place
      left--
    }
  }
  return {
    owners,
    slotOf: (hash) => hash % size,
    shares() {
      const shares = new Float64Array(count)
      for (const owner of owners) shares[owner]! += 1 / size
      return shares
    }
  }
}

/** Returns the number of slots that each instance takes per round; null if all are equal. */
function turnsOf(instances: readonly Instance[]): Float64Array | null {
  const most = instances.reduce((most, { weight }) => Math.max(most, weight), 0)
  if (instances.every(({ weight }) => weight === most)) return null
  return Float64Array.from(instances, ({ weight }) => weight / most)
}

/** Returns the next prime, because callers of `createMesh` may pass any size. */
function nextPrime(least: number): number {
  let candidate = Math.max(2, least)
  while (!isPrime(candidate)) candidate++
  return candidate
}
