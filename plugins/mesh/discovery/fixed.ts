/** Instances that never change. */
import type { InstanceSpec, Source } from '../core/types.ts'

type Listed = readonly (string | { readonly url: string; readonly weight: number })[]

export function fixedSource(listed: Listed, now: () => number): Source {
  const specs = Object.freeze(specsOf(listed))
  return {
    start: (publish) => publish(specs),
    status: () => ({ kind: 'static', confirmedAt: now(), error: null }),
    close: async () => {}
  }
}

/** Converts the list to instances. An address that is listed twice is one instance with both weights. */
function specsOf(listed: Listed): InstanceSpec[] {
  const weights = new Map<string, number>()
  for (const entry of listed) {
    const { url, weight } = typeof entry === 'string' ? { url: entry, weight: 1 } : entry
    const { origin } = new URL(url)
    weights.set(origin, (weights.get(origin) ?? 0) + weight)
  }
  return [...weights].map(([origin, weight]) => ({ id: origin, origin, weight, tags: [], meta: {} }))
}
