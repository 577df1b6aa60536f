/**
 * Rate limits per client address, consumer or header, by @fastify/rate-limit, counted for each configured route
 * on its own and answered with the IETF `ratelimit-*` headers.
 *
 * By address and by header they stand before authentication, which they shield. A client can change a header with each
 * request: `maxPerAddress` counts its address beside the header. By consumer they come after
 * all of onRequest, when the consumer is known, but before the body is read.
 */
import { createHash } from 'node:crypto'
import { createError } from '@fastify/error'
import type { FastifyRateLimitOptions, FastifyRateLimitStore } from '@fastify/rate-limit'
import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest, preParsingHookHandler, RouteOptions } from 'fastify'
import { FifoMap } from 'toad-cache'
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

/** Limits that refuse, for the access log. A closed list: documented in plugins/edge/README.md. */
export const limitReasons = ['rate_ip', 'rate_consumer', 'rate_header', 'rate_max_per_address'] as const

type LimitReason = (typeof limitReasons)[number]

/** Keys longer than this are hashed: a client must not choose how much is stored. */
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
      // Not with `max`: another limit goes on from the same count.
      const key = { counted, store, by, window }
      const local = stores.claim('jingwei.rate-limit', key, () => new LocalCounter(undefined, now))
      if (store === 'memory') return local
      if (config.redis === undefined) throw new Error(`route ${route}: a shared rate limit needs redis.url`)
      link ??= linkTo(config.redis)
      // There from the start, before the first outage.
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

    return (options, route) => {
      const { name } = edgeRouteOf(route.config)!
      const counted = countedAs(route, name)
      const counter = counters.get(counted) ?? createCounter(name, counted, options)
      counters.set(counted, counter)
      const { max, window: timeWindow, by, maxPerAddress } = options
      const keyOf = keyBy(by)
      const errorResponseBuilder: LimitOptions['errorResponseBuilder'] = (request, { after }) => {
        request.refusalReason = reasonFor(by, request)
        return new RateLimited(after)
      }
      const limited = { max, timeWindow, keyGenerator: keyOf, counter, errorResponseBuilder }
      // Made by the first request that needs it: most are counted here, and the plugin keeps much for each route.
      let limiter: Limit | undefined
      const limit: Limit = (request, reply) => {
        limiter ??= fastify.rateLimit(limited as LimitOptions) as Limit
        return limiter(request, reply)
      }
      const admit = counter instanceof LocalCounter ? atOnce(limit, counter, options, keyOf) : null
      const byAddress = maxPerAddress === undefined ? [] : [addressLimit(counter, maxPerAddress, timeWindow)]
      // Fastify calls both kinds of hook with request and reply first, and as many parameters as they have is all it asks.
      if (by !== 'consumer') return { onRequest: [...byAddress, admit ?? limit] }
      const afterAll: preParsingHookHandler =
        admit === null ? limit : (request, reply, _payload, done) => admit(request, reply, done)
      return { onRequest: byAddress, preParsing: afterAll }
    }
  }
})

/**
 * Returns the text under which requests of a route are counted. A configured route may be several Fastify routes, which
 * count together. A plugin's own routes count apart, by method and host, but for HEAD, which Fastify adds to GET.
 */
function countedAs({ config, method, constraints }: RouteOptions, name: string): string {
  if (config?.route !== undefined) return name
  const methods = [method].flat().map((each) => (each === 'HEAD' ? 'GET' : each))
  return [...new Set(methods)].sort().join() + (constraints?.host ?? '') + name
}

type LimitOptions = Parameters<FastifyInstance['rateLimit']>[0] & { counter: Counter }
type Limit = (request: FastifyRequest, reply: FastifyReply) => Promise<void>
type Done = (error?: Error) => void

/**
 * Lets requests within the limit of a counter in this process through, with the plugin's headers. Others are left to the
 * plugin, which is asynchronous. (5 µs a request.)
 */
function atOnce(limit: Limit, counter: LocalCounter, { max, window }: RateLimitOptions, keyOf: KeyOf) {
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

/** Counts the address as well. Not by the plugin, which applies one limit to a request. */
function addressLimit(counter: Counter, max: number, window: number) {
  const address = keyBy('ip')
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
    // Apart from the requests without the header, which count by address too.
    counter.incr(`all:${address(request)}`, onCount, window)
  }
}

/** Returns what a request was counted by: those that lack the header or the consumer count by address. */
function reasonFor(by: RateLimitOptions['by'], request: FastifyRequest): LimitReason {
  if (by === 'consumer') return request.consumer === null ? 'rate_ip' : 'rate_consumer'
  if (by === 'ip') return 'rate_ip'
  return linesOf(by.slice('header:'.length))(request.raw.rawHeaders, 0) === -1 ? 'rate_ip' : 'rate_header'
}

/** @fastify/rate-limit takes one store and asks it for a child per route: here, the counter made for it. */
class RouteCounters implements FastifyRateLimitStore {
  incr(): void {
    throw new Error('only routes have counters')
  }

  child(options: FastifyRateLimitOptions): FastifyRateLimitStore {
    return (options as { counter: FastifyRateLimitStore }).counter
  }
}

type KeyOf = (request: FastifyRequest) => string

/** The prefixes keep a header's or consumer's text from passing for an address. */
function keyBy(by: RateLimitOptions['by']): KeyOf {
  // To find an IPv6 address's network takes 7 µs.
  const known = new FifoMap<string>(1000)
  // A client that left during an earlier hook has no address.
  const address = ({ ip = '' }: FastifyRequest): string => {
    let key = known.get(ip)
    if (key === undefined) {
      key = bounded('ip:', rateLimit.normalizeIP(ip))
      known.set(ip, key)
    }
    return key
  }
  if (by === 'ip') return address
  if (by === 'consumer') {
    return (request) => (request.consumer ? bounded('consumer:', request.consumer.id) : address(request))
  }
  const name = by.slice('header:'.length)
  const lines = linesOf(name)
  // RFC 9110, 11.1: a scheme has no case, and any number of blanks behind it.
  const credentials = canonicalName(name) === 'authorization'
  const settle = (value: string) =>
    credentials ? value.replace(/^(\S+) +/, (_, scheme: string) => `${scheme.toLowerCase()} `) : value
  return (request) => {
    const { rawHeaders } = request.raw
    const at = lines(rawHeaders, 0)
    if (at === -1) return address(request)
    if (lines(rawHeaders, at + 2) !== -1) throw new SeveralValues(name)
    const value = settle(rawHeaders[at + 1]!)
    return value ? bounded('header:', value) : address(request)
  }
}

/**
 * Finds the next line of a header in a flat list; -1 if there is none. In any spelling that a service may read as this
 * header: with a `_` for each `-`, as CGI does, a client could bring another key in each.
 */
function linesOf(name: string): (rawHeaders: readonly string[], from: number) => number {
  const wanted = canonicalName(name)
  return (rawHeaders, from) => {
    for (let i = from; i < rawHeaders.length; i += 2) {
      const given = rawHeaders[i]!
      if (given.length === wanted.length && canonicalName(given) === wanted) return i
    }
    return -1
  }
}

function bounded(prefix: string, value: string): string {
  if (value.length <= longestKey) return prefix + value
  return `${prefix}sha256:${createHash('sha256').update(value).digest('base64url')}`
}
