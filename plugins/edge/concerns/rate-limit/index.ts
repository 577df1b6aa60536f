/**
 * Rate limits per client address, consumer or header, by @fastify/rate-limit. Each configured route has counters of its
 * own. Responses have the IETF `ratelimit-*` headers.
 *
 * Limits by address and by header run before authentication and protect it. Since a client can change a header with each
 * request, `maxPerAddress` limits its address as well. Limits by consumer run after all `onRequest` hooks, when the
 * consumer is known, but before the body is read.
 */
import { createHash } from 'node:crypto'
import { createError } from '@fastify/error'
import type { FastifyRateLimitOptions, FastifyRateLimitStore } from '@fastify/rate-limit'
import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import { FifoMap } from 'toad-cache'
import { directionsOf } from '../../../../config/direction.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { orOff } from '../../../../config/schema/kit.ts'
import type { RedisOptions } from '../../../../config/schema.ts'
import { edgeRouteOf } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import type { RateLimitOptions } from './options.ts'
import { checkRateLimit, RateLimit } from './options.ts'
import type { Count } from './redis-link.ts'
import { RedisLink } from './redis-link.ts'
import type { Counter } from './store.ts'
import { LocalCounter, SharedCounter } from './store.ts'

const SeveralValues = createError('JW_SEVERAL_VALUES', 'The header %s may be sent only once', 400)
const RateLimited = createError('JW_RATE_LIMITED', 'Rate limit exceeded, retry in %s', 429)

/** Reasons for the access log: the limit that refused. A closed list, documented in plugins/edge/README.md. */
export const limitReasons = ['rate_ip', 'rate_consumer', 'rate_header', 'rate_max_per_address'] as const

type LimitReason = (typeof limitReasons)[number]

/** Length above which keys are hashed: clients must not control the size of stored keys. */
const longestKey = 64

export default edgeConcern({
  name: 'rateLimit',
  options: orOff(RateLimit),
  tries({ config, urlOf, isOpen }) {
    const route = config.routes.find((each) => each.edge.rateLimit && isOpen(each) && urlOf(each))
    const limit = route?.edge.rateLimit
    if (!route || !limit) return []
    const ask = `curl -s -o /dev/null -w '%{http_code} ' ${urlOf(route)}`
    return [
      `for i in $(seq ${limit.max + 1}); do ${ask}; done      # ${limit.max} in ${limit.window / 1000} s, then 429`
    ]
  },
  check: checkRateLimit,
  needs: { fact: 'consumer', option: 'by', value: 'consumer' },
  isolate: (options) => ({ ...options, store: 'memory' as const }),
  async plugin(fastify, { config, stores, meter, log, clock: { now } }) {
    await fastify.register(rateLimit, {
      global: false,
      enableDraftSpec: true,
      skipOnError: true,
      store: RouteCounters,
      errorResponseBuilder: (_request, { after }) => new RateLimited(after)
    })

    let link: RedisLink | undefined
    let unwatch: (() => void) | undefined
    fastify.addHook('onReady', async () => link?.connect())
    fastify.addHook('onClose', async () => unwatch?.())
    const linkTo = (redis: RedisOptions): RedisLink => {
      const link = stores.claim(
        'jingwei.redis',
        redis,
        () => new RedisLink(redis, log),
        (link) => link.close()
      )
      unwatch ??= meter.gauge({
        name: 'jingwei_edge_redis_up',
        help: 'State of the Redis that holds shared rate limits: 1 if it responds in time, else 0.',
        collect: (set) => set({}, link.isUp ? 1 : 0)
      })
      return link
    }

    const createCounter = (route: string, counted: string, { store, by, window }: RateLimitOptions): Counter => {
      // Without `max`: after a change of the limit, counting continues.
      const key = { counted, store, by, window }
      const local = stores.claim('jingwei.rate-limit', key, () => new LocalCounter(undefined, now))
      if (store === 'memory') return local
      if (config.redis === undefined) throw new Error(`route ${route}: a shared rate limit needs redis.url`)
      link ??= linkTo(config.redis)
      // Made at start: rate() does not see the first increment of a series that starts with it.
      const fallbacks = meter
        .counter({
          name: 'jingwei_edge_rate_limit_fallbacks_total',
          help: 'Requests for which this node decided a shared rate limit on its own, because Redis did not respond in time.',
          labelNames: ['route']
        })
        .labels(route)
      return new SharedCounter(link, counted, local, () => fallbacks.inc())
    }

    const counters = new Map<string, Counter>()
    const hasBothDirections = directionsOf(config.listeners).length > 1
    const keyFor = (by: RateLimitOptions['by']) => (hasBothDirections ? perDirection(keyBy(by)) : keyBy(by))

    return (options, route) => {
      const { name } = edgeRouteOf(route.config)!
      const counted = counterName(route, name)
      const counter = counters.get(counted) ?? createCounter(name, counted, options)
      counters.set(counted, counter)
      const { max, window: timeWindow, by, maxPerAddress } = options
      const keyOf = keyFor(by)
      const errorResponseBuilder: LimitOptions['errorResponseBuilder'] = (request, { after }) => {
        request.refusalReason = reasonFor(by, request)
        return new RateLimited(after)
      }
      const limited = { max, timeWindow, keyGenerator: keyOf, counter, errorResponseBuilder }
      // Made by the first request that exceeds the limit or counts in Redis: the plugin needs much memory per route.
      let limiter: Limit | undefined
      const limit: Limit = (request, reply) => {
        limiter ??= fastify.rateLimit(limited as LimitOptions) as Limit
        return limiter(request, reply)
      }
      const admit = counter instanceof LocalCounter ? synchronousLimit(limit, counter, options, keyOf) : null
      const byAddress =
        maxPerAddress === undefined ? [] : [addressLimit(counter, keyFor('ip'), maxPerAddress, timeWindow)]
      // `limit` is either kind of hook: Fastify passes request and reply first, and waits for the promise.
      if (by !== 'consumer') return { onRequest: [...byAddress, admit ?? limit] }
      const afterAll: preParsingHookHandler =
        admit === null ? limit : (request, reply, _payload, done) => admit(request, reply, done)
      return { onRequest: byAddress, preParsing: afterAll }
    }
  }
})

/**
 * Returns the name of the counters of a route. All Fastify routes of a configured route share them. A plugin's own routes
 * have separate ones by method and host; HEAD counts as GET, since Fastify adds a HEAD route to each GET route.
 */
function counterName({ config, method, constraints }: RouteOptions, name: string): string {
  if (config?.route !== undefined) return name
  const methods = [method].flat().map((each) => (each === 'HEAD' ? 'GET' : each))
  return [...new Set(methods)].sort().join() + (constraints?.host ?? '') + name
}

type LimitOptions = Parameters<FastifyInstance['rateLimit']>[0] & { counter: Counter }
type Limit = (request: FastifyRequest, reply: FastifyReply) => Promise<void>
type Done = (error?: Error) => void

/**
 * Admits requests within the limit of a counter in this process, with the plugin's headers. Requests above the limit are
 * left to the plugin, which is asynchronous. (This saves 5 µs per request.)
 */
function synchronousLimit(limit: Limit, counter: LocalCounter, { max, window }: RateLimitOptions, keyOf: KeyOf) {
  return (request: FastifyRequest, reply: FastifyReply, done: Done): void => {
    let count: ReturnType<LocalCounter['admit']>
    try {
      count = counter.admit(keyOf(request), max, window)
    } catch (error) {
      done(error as Error)
      return
    }
    if (count === null) {
      limit(request, reply).then(() => done(), done)
      return
    }
    reply.header('ratelimit-limit', max)
    reply.header('ratelimit-remaining', max - count.current)
    reply.header('ratelimit-reset', Math.ceil(count.ttl / 1000))
    done()
  }
}

/** Limits the address, too. The plugin is not used, because it applies only one limit to a request. */
function addressLimit(counter: Counter, address: KeyOf, max: number, window: number) {
  return (request: FastifyRequest, reply: FastifyReply, done: Done): void => {
    const onCount = (_error: Error | null, count?: Count): void => {
      if (count === undefined || count.current <= max) {
        done()
        return
      }
      const seconds = Math.ceil(count.ttl / 1000)
      reply.header('ratelimit-limit', max)
      reply.header('ratelimit-remaining', 0)
      reply.header('ratelimit-reset', seconds)
      reply.header('retry-after', seconds)
      request.refusalReason = 'rate_max_per_address'
      done(new RateLimited(seconds === 1 ? '1 second' : `${seconds} seconds`))
    }
    // Another key than that of requests without the header, which are counted by address too.
    counter.incr(`all:${address(request)}`, onCount, window)
  }
}

/** Returns the key by which a request was counted: requests without the header or consumer are counted by address. */
function reasonFor(by: RateLimitOptions['by'], request: FastifyRequest): LimitReason {
  if (by === 'consumer') return request.consumer === null ? 'rate_ip' : 'rate_consumer'
  if (by === 'ip') return 'rate_ip'
  return fieldFinder(by.slice('header:'.length))(request.raw.rawHeaders, 0) === -1 ? 'rate_ip' : 'rate_header'
}

/** Store of @fastify/rate-limit, which calls `child` for each route: returns the counter that was made for the route. */
class RouteCounters implements FastifyRateLimitStore {
  incr(): void {
    throw new Error('only child stores of routes count')
  }

  child(options: FastifyRateLimitOptions): FastifyRateLimitStore {
    return (options as { counter: FastifyRateLimitStore }).counter
  }
}

type KeyOf = (request: FastifyRequest) => string

/** Returns the function for the key of a request. Prefixes keep the value of a header or consumer distinct from an address. */
function keyBy(by: RateLimitOptions['by']): KeyOf {
  // Cached, since computing the network of an IPv6 address takes 7 µs.
  const known = new FifoMap<string>(1000)
  // A client that disconnected during an earlier hook has no address.
  const address = ({ ip = '' }: FastifyRequest): string => {
    let key = known.get(ip)
    if (key === undefined) {
      key = boundedKey('ip:', rateLimit.normalizeIP(ip))
      known.set(ip, key)
    }
    return key
  }
  if (by === 'ip') return address
  if (by === 'consumer') {
    return (request) => (request.consumer ? boundedKey('consumer:', request.consumer.id) : address(request))
  }
  const name = by.slice('header:'.length)
  const findField = fieldFinder(name)
  // RFC 9110, 11.1: the scheme is case-insensitive, and any number of spaces may follow it.
  const isCredentials = canonicalName(name) === 'authorization'
  const normalized = (value: string) =>
    isCredentials ? value.replace(/^(\S+) +/, (_, scheme: string) => `${scheme.toLowerCase()} `) : value
  return (request) => {
    const { rawHeaders } = request.raw
    const at = findField(rawHeaders, 0)
    if (at === -1) return address(request)
    if (findField(rawHeaders, at + 2) !== -1) throw new SeveralValues(name)
    const value = normalized(rawHeaders[at + 1]!)
    return value ? boundedKey('header:', value) : address(request)
  }
}

/** Returns a function that counts calls between services apart from requests of clients, whose keys stay the same. */
const perDirection =
  (keyOf: KeyOf): KeyOf =>
  (request) =>
    request.direction === 'east-west' ? `east-west:${keyOf(request)}` : keyOf(request)

/**
 * Returns a function that finds the next field with a name in `rawHeaders`; -1 if there is none. It also finds spellings
 * that a service may read as this header, such as `_` for `-` (CGI): otherwise a client could send another key in each.
 */
function fieldFinder(name: string): (rawHeaders: readonly string[], from: number) => number {
  const wanted = canonicalName(name)
  return (rawHeaders, from) => {
    for (let i = from; i < rawHeaders.length; i += 2) {
      const given = rawHeaders[i]!
      if (given.length === wanted.length && canonicalName(given) === wanted) return i
    }
    return -1
  }
}

/** Returns the prefixed value, hashed if it is long. */
function boundedKey(prefix: string, value: string): string {
  if (value.length <= longestKey) return prefix + value
  return `${prefix}sha256:${createHash('sha256').update(value).digest('base64url')}`
}
