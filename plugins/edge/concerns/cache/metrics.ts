/** Metrics of the cache, by route. */
import type { ConfigurationMeter } from '../../../meter.ts'
import type { MemoryStore } from './memory-store.ts'

/** Results of requests, a closed list: see the help text of the counter. */
const results = ['hit', 'stale', 'collapsed', 'revalidated', 'miss', 'expired', 'bypass'] as const

export type Count = (result: (typeof results)[number]) => void

/** Returns the function that counts the requests of a route. */
export function counterOf(meter: ConfigurationMeter, route: string): Count {
  const counter = meter.counter({
    name: 'jingwei_edge_cache_requests_total',
    help: 'Requests on routes with a cache. Without a call: hit, stale (expired, but allowed), collapsed (the response to an equal request). With one: miss, expired, and then revalidated or stale if the stored response was sent; bypass.',
    labelNames: ['route', 'result']
  })
  const counts = Object.fromEntries(results.map((result) => [result, counter.labels(route, result)]))
  return (result) => counts[result]!.inc()
}

/** Measures a store as long as it exists. Returns the function that ends that. */
export function measure(store: MemoryStore, { lasting }: ConfigurationMeter): () => void {
  const evictions = lasting.counter({
    name: 'jingwei_edge_cache_evictions_total',
    help: 'Stored responses that were removed for lack of memory (maxSize), by route.',
    labelNames: ['route']
  })
  store.onEvicted = (route) => evictions.labels(route).inc()
  const ends = [
    lasting.gauge({
      name: 'jingwei_edge_cache_bytes',
      help: 'Memory of stored responses, by route.',
      labelNames: ['route'],
      collect: (set) => {
        for (const [route, { bytes }] of store.sums) set({ route }, bytes)
      }
    }),
    lasting.gauge({
      name: 'jingwei_edge_cache_entries',
      help: 'Number of stored responses, by route.',
      labelNames: ['route'],
      collect: (set) => {
        for (const [route, { entries }] of store.sums) set({ route }, entries)
      }
    })
  ]
  return () => {
    for (const end of ends) end()
  }
}
