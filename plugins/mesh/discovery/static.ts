/** Instances written in the configuration: there from the start, and for good. */
import type { ServiceConfig } from '../../../config/schema.ts'
import type { InstanceSpec, Source } from '../types.ts'

type Listed = NonNullable<ServiceConfig['instances']>

export function staticSource(listed: Listed, now: () => number): Source {
  const specs = Object.freeze(specsOf(listed))
  return {
    start: (publish) => publish(specs),
    status: () => ({ kind: 'static', confirmedAt: now(), error: null }),
    close: async () => {}
  }
}

function specsOf(listed: Listed): InstanceSpec[] {
  const seen = new Map<string, number>()
  return listed.map((entry) => {
    const { url, weight } = typeof entry === 'string' ? { url: entry, weight: 1 } : entry
    const { origin } = new URL(url)
    const count = (seen.get(origin) ?? 0) + 1
    seen.set(origin, count)
    // An address listed twice is meant to have twice the share; ids must still differ.
    return { id: count === 1 ? origin : `${origin}#${count}`, origin, weight, tags: [], meta: {} }
  })
}
