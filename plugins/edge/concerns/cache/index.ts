/**
 * Shared cache of responses (RFC 9111), in memory or in Redis. It intercepts the calls of a route after all concerns and
 * hooks, so that it sees the request as the service gets it, and stores responses as the service sends them, before anything
 * is added for one client.
 *
 * undici's cache interceptor is not used: it knows neither callers nor headers that concerns add, serves no ranges and no
 * 304 from the store, and fetches a key as often as it is asked for at a time.
 */

import type { Dispatcher } from 'undici'
import { orOff } from '../../../../config/schema/kit.ts'
import { edgeConcern } from '../../concern.ts'
import { addPages } from './admin.ts'
import { Reader } from './asked.ts'
import { Flights } from './flights.ts'
import { HeldBodies } from './held-bodies.ts'
import { MemoryStore } from './memory-store.ts'
import { counterOf, measure, measureHeld, measureRedis } from './metrics.ts'
import type { CacheOptions } from './options.ts'
import { Cache, checkCache, checkRoutes, isByConsumer } from './options.ts'
import { purgeCommand } from './purge-command.ts'
import { RedisStore } from './redis-store.ts'
import { RouteCache } from './route-cache.ts'

export default edgeConcern({
  name: 'cache',
  options: orOff(Cache),
  noShadow: 'it refuses no request',
  protects: false,
  ownRoutes: 'never',
  needsBridge: 'the cache works on the calls of the gateway’s own bridge',
  aliases: { 'proxyCache|httpCache|localResponseCache|responseCache|caching': 'write edge.cache' },
  innerAliases: {
    'cacheTtl|defaultTtl|cacheTTL': 'write ttl: { 200: 60s }',
    'negativeTtl|negative': 'write ttl: { 404: 5s }',
    'memory|maxMemory|memorySize': 'write maxSize',
    'varyHeaders|vary_headers': 'write key: { headers: […] }',
    'stale|grace': 'write staleWhileRevalidate and staleIfError',
    'lock|cacheLock|collapsing': 'write coalesce: 5s',
    'strategy|storage|backend|storeType': 'write store: redis, or memory'
  },
  apiFacts: ({ cacheStatus }) => ({
    methods: ['GET', 'HEAD'],
    headers: {
      Age: 'Seconds since the service has made the response.',
      ...(cacheStatus !== 'off' && { 'Cache-Status': 'Whether the response is from the cache (RFC 9211).' })
    }
  }),
  check: checkCache,
  checkAll: checkRoutes,
  isolate: (options) => ({ ...options, store: 'memory' as const }),
  commands: [purgeCommand],
  needs: { fact: 'consumer', option: 'key', value: isByConsumer },
  explain({ store, maxEntry, ttl }, { method }) {
    if (method !== 'GET' && method !== 'HEAD') return 'not cached: only GET and HEAD are'
    const defaults = Object.entries(ttl ?? {}).map(([status, ms]) => `${status} for ${ms / 1000} s`)
    const rest = defaults.length === 0 ? '' : `; without such a header ${defaults.join(', ')}`
    const where = store === 'redis' ? 'in Redis' : 'of this node'
    return `may answer from the cache ${where}: responses up to ${maxEntry} bytes whose Cache-Control or Expires allows it${rest}`
  },
  async plugin(fastify, { config, stores, meter, log, clock }) {
    const flights = new Flights(clock.now)
    const held = stores.claim('jingwei.cache-held', null, () => new HeldBodies())
    measureHeld(held, meter)
    const inUse = new Set<MemoryStore | RedisStore>()
    if (fastify.hasDecorator('admin') && fastify.admin !== null)
      addPages(fastify.admin, inUse, new Set(config.routes.map(({ name }) => name)))
    fastify.addHook('onReady', async () => {
      for (const store of inUse) if (store.isRemote) store.connect()
    })
    const memoryStore = (maxSize: number): MemoryStore => {
      const create = () => {
        const store = new MemoryStore(maxSize)
        return { store, end: measure(store, meter) }
      }
      return stores.claim('jingwei.cache', { maxSize }, create, ({ end }) => end()).store
    }
    const redisStore = (maxSize: number): RedisStore => {
      const { redis } = config
      if (redis === undefined) throw new Error('cache.store: redis needs redis.url')
      const create = () => {
        const { count, watch } = measureRedis(meter)
        const store = new RedisStore(redis, maxSize, log, count)
        return { store, end: watch(store) }
      }
      const claimed = stores.claim('jingwei.cache-redis', { redis, maxSize }, create, ({ store, end }) => {
        end()
        store.close()
      })
      return claimed.store
    }
    const storeOf = ({ store, maxSize }: CacheOptions) =>
      store === 'redis' ? redisStore(maxSize) : memoryStore(maxSize)
    return (options, routeOptions) => {
      const { route, preflightFor } = routeOptions.config ?? {}
      if (route === undefined || preflightFor !== undefined) return null
      const store = storeOf(options)
      inUse.add(store)
      const reader = new Reader(options, route, config.perRequestHeaders)
      const count = counterOf(meter, route.name)
      const interceptor = (dispatch: Dispatcher['dispatch']): Dispatcher['dispatch'] => {
        const cache = new RouteCache({ options, route, reader, store, flights, held, clock, count }, dispatch)
        return (opts, handler) => cache.dispatch(opts, handler)
      }
      const { callInterceptors = [] } = routeOptions.config!
      Object.assign(routeOptions.config!, { callInterceptors: [...callInterceptors, interceptor] })
      return null
    }
  }
})
