/** Instances written in the configuration: there from the start, and for good. */
import type { ServiceConfig } from '../../../config/schema.ts'
import type { InstanceSpec, Source } from '../core/types.ts'

type Listed = NonNullable<ServiceConfig['instances']>

export function staticSource(listed: Listed, now: () => number): Source {
  const specs = Object.freeze(specsOf(listed))
  return {
    start: (publish) => publish(specs),
    status: () => ({ kind: 'static', confirmedAt: now(), error: null }),
    close: async () => {}
  }
}

/** An address that is listed twice is one instance; whoever wrote it twice wants it to have both shares. */
function specsOf(listed: Listed): InstanceSpec[] {
  const weights = new Map<string, number>()
  for (const entry of listed) {
    const { url, weight } = typeof entry === 'string' ? { url: entry, weight: 1 } : entry
    const { origin } = new URL(url)
    weights.set(origin, (weights.get(origin) ?? 0) + weight)
  }
  return [...weights].map(([origin, weight]) => ({ id: origin, origin, weight, tags: [], meta: {} }))
}
