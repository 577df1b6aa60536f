/** Metrics of the cache, by route. */
import type { ConfigurationMeter } from '../../../meter.ts'
import type { HeldBodies } from './held-bodies.ts'
import type { MemoryStore } from './memory-store.ts'
import type { RedisStore } from './redis-store.ts'

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

/** Adds the metric of the bodies that clients are reading. */
export function measureHeld(held: HeldBodies, meter: ConfigurationMeter): void {
  meter.gauge({
    name: 'jingwei_edge_cache_held_bytes',
    help: 'Memory of stored bodies above 64 KB that clients are reading.',
    collect: (set) => set({}, held.bytes)
  })
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

/** Returns the function that counts commands to Redis, and the one that measures a store as long as it exists. */
export function measureRedis({ lasting }: ConfigurationMeter) {
  const commands = lasting.counter({
    name: 'jingwei_edge_cache_redis_commands_total',
    help: 'Commands of the cache to Redis (lookup, store, invalidate, purge) by result. Of lookups: hit, miss, purged, corrupt (damaged or foreign). Of stores: ok, outdated (invalidated meanwhile), too-large, oom (Redis is out of memory). Of all: unavailable, busy (too many at a time), timeout, error.',
    labelNames: ['command', 'result']
  })
  // Made at start: rate() does not see the first increment of a series that starts with it.
  for (const [command, results] of Object.entries(resultsOf))
    for (const result of results) commands.labels(command, result).inc(0)
  return {
    count: (command: string, result: string) => commands.labels(command, result).inc(),
    watch: (store: RedisStore): (() => void) =>
      lasting.gauge({
        name: 'jingwei_edge_cache_redis_up',
        help: 'State of the Redis that holds stored responses: 1 if they are used, 0 while it does not respond in time.',
        collect: (set) => set({}, store.isUp ? 1 : 0)
      })
  }
}

const failures = ['unavailable', 'busy', 'timeout', 'oom', 'error'] as const

/** Results of commands, a closed list. */
const resultsOf = {
  lookup: ['hit', 'miss', 'purged', 'corrupt', ...failures],
  store: ['ok', 'outdated', 'too-large', ...failures],
  invalidate: ['ok', ...failures],
  purge: ['ok', ...failures]
} as const
