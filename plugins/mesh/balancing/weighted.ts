import type { Endpoint, Instance } from '../core/types.ts'

/** Returns a sampler that draws index i with probability weight[i] / total; uniformly if all weights are equal. */
export function weightedSampler(items: readonly { readonly weight: number }[], random: () => number): () => number {
  const count = items.length
  const first = items[0]?.weight
  if (items.every(({ weight }) => weight === first)) return () => Math.floor(random() * count)

  const cumulative: number[] = []
  let total = 0
  for (const { weight } of items) {
    total += weight
    cumulative.push(total)
  }
  return () => {
    const point = random() * total
    let low = 0
    let high = count - 1
    while (low < high) {
      const middle = (low + high) >>> 1
      if (cumulative[middle]! > point) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** Returns the first instance from index `start` on, cyclically, that was not tried; null if there is none. */
export function firstUntried(
  instances: readonly Instance[],
  start: number,
  tried: ReadonlySet<Endpoint>
): Instance | null {
  for (let step = 0; step < instances.length; step++) {
    const instance = instances[(start + step) % instances.length]!
    if (!tried.has(instance.endpoint)) return instance
  }
  return null
}
