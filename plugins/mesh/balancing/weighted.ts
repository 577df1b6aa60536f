import type { Endpoint, Instance } from '../core/types.ts'

/** A sampler that draws index i with probability weight[i] / total: by index when all weights are equal. */
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

/** The first instance from `start` on, around the ring, that was not tried. */
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
