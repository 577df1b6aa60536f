/**
 * Rate limits per client address, consumer, header, claim or route, in windows of several kinds. Each configured route has
 * counters of its own, unless limits have a name. The simple limits are applied by @fastify/rate-limit (plain.ts), all
 * others by our own code (limiter.ts).
 *
 * Limits by address and by header run before authentication and protect it. Since a client can change a header with each
 * request, `maxPerAddress` limits its address as well. Limits by consumer or claim run after all `onRequest` hooks, when the
 * caller is known, but before the body is read.
 */
import type { FastifyBaseLogger, FastifyRequest, RouteOptions } from 'fastify'
import { directionsOf } from '../../../../config/direction.ts'
import { orOff } from '../../../../config/schema/kit.ts'
import type { RedisOptions } from '../../../../config/schema.ts'
import { edgeRouteOf } from '../../attach.ts'
import { countNodes, nodesKey } from '../../bridge/nodes.ts'
import { edgeConcern } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { mayOverride } from '../../consumers/overrides.ts'
import { shadowRecorder } from '../../shadow.ts'
import { checkAllLimits, checkRateLimit } from './check.ts'
import { explainLimits } from './explain.ts'
import { headerFacts } from './headers.ts'
import { admitterTo, hooksFor, withOwn } from './hooks.ts'
import type { KeyOf } from './keys.ts'
import { keyBy, perDirection } from './keys.ts'
import type { Step } from './limiter.ts'
import { Limiter, steps } from './limiter.ts'
import { isCeiling, isOfCaller, isOfClaim, limitsOf, RateLimit } from './options.ts'
import { isPlain, plainHooks, registerPlugin } from './plain.ts'
import { RedisLink } from './redis-link.ts'
import type { Limits, RuleContext } from './rules.ts'
import { limitsFor } from './rules.ts'
import { LocalCounter } from './store.ts'

const twoLimits = 'write two limits: [{ max: …, window: … }, { maxConcurrent: … }]'

export default edgeConcern({
  name: 'rateLimit',
  options: orOff(RateLimit),
  apiFacts: (options) => ({
    responses: { 429: 'Too many requests. Retry-After has the seconds to wait.' },
    headers: headerFacts(limitsOf(options)),
    extensions: {
      'x-rate-limit': limitsOf(options).map((limit) =>
        isCeiling(limit)
          ? { concurrent: limit.maxConcurrent, by: limit.by }
          : { max: limit.max, seconds: limit.window / 1000, by: limit.by }
      )
    }
  }),
  tries({ config, urlOf, isOpen }) {
    const route = config.routes.find((each) => each.edge.rateLimit && isOpen(each) && urlOf(each))
    const limit = limitsOf(route?.edge.rateLimit || []).find((each) => !isCeiling(each))
    if (!route || !limit || isCeiling(limit)) return []
    const ask = `curl -s -o /dev/null -w '%{http_code} ' ${urlOf(route)}`
    return [
      `for i in $(seq ${limit.max + 1}); do ${ask}; done      # ${limit.max} in ${limit.window / 1000} s, then 429`
    ]
  },
  // A consumer's limits take the place of the route's late ones only, and are checked together with shared early ones.
  forConsumers: { phases: ['preParsing'], neutral: [], isAdded: true },
  shadowsItself: true,
  more: [nodesKey],
  aliases: {
    'limitCount|throttle|maxRate|clientMaxRate': 'write rateLimit: { max: 100, window: 1m }',
    'limitReq|requestRateLimiter': 'write rateLimit: { algorithm: token-bucket, max: 100, window: 1s, burst: 200 }',
    'limitConn|inFlightReq': 'write rateLimit: { maxConcurrent: 10 }',
    responseRatelimiting: 'write edge.rateLimit with costHeader'
  },
  innerAliases: {
    max: twoLimits,
    window: twoLimits,
    average: 'write max, with algorithm: token-bucket',
    'period|timeWindow|interval': 'write window',
    'limit|count|requests': 'write max',
    'rate|replenishRate|maxRate': 'write max, with algorithm: token-bucket',
    burstCapacity: 'write burst',
    requestedTokens: 'write cost',
    'limitBy|key|keyType|sourceCriterion|strategy|keyResolver': 'write by',
    policy: 'write store: redis, or memory',
    'faultTolerant|allowDegradation|skipOnError': 'write onFailure: open, closed or share',
    'rejectedCode|statusCode': 'remove it: a refusal has the status 429',
    group: 'write name: routes whose limits have the same name share their counters',
    second: 'write max and window: 1s',
    minute: 'write max and window: 1m',
    hour: 'write max and window: 1h',
    day: 'write max and window: 1d',
    month: 'write max and window: 30d'
  },
  check: checkRateLimit,
  checkAll: checkAllLimits,
  needs: [
    { fact: 'claims', option: 'by', value: isOfClaim },
    { fact: 'consumer', option: 'by', value: isOfCaller }
  ],
  explain: explainLimits,
  isolate: (options) => {
    const inMemory = limitsOf(options).map((limit) => {
      if (isCeiling(limit)) {
        const { share: _, ...rest } = limit
        return rest
      }
      const { share: _, onFailure, lease, ...rest } = limit
      return { ...rest, store: 'memory' as const }
    })
    return Array.isArray(options) ? inMemory : inMemory[0]!
  },
  async plugin(fastify, { config, stores, meter, log, clock: { now } }) {
    await registerPlugin(fastify)

    let link: RedisLink | undefined
    const unwatch: (() => void)[] = []
    fastify.addHook('onReady', async () => link?.connect())
    fastify.addHook('onClose', async () => {
      for (const each of unwatch) each()
    })
    const linkTo = (redis: RedisOptions): RedisLink => {
      const link = stores.claim(
        'jingwei.redis',
        redis,
        () => new RedisLink(redis, log),
        (link) => link.close()
      )
      unwatch.push(
        meter.gauge({
          name: 'jingwei_edge_redis_up',
          help: 'State of the Redis that holds shared rate limits: 1 if it responds in time, else 0.',
          collect: (set) => set({}, link.isUp ? 1 : 0)
        }),
        meter.gauge({
          name: 'jingwei_edge_redis_nodes',
          help: 'Nodes that share rate limits in Redis, when it last responded; 0: not known.',
          collect: (set) => set({}, link.nodes)
        })
      )
      return link
    }

    const { gatewayNodes } = config.edge
    const counted = gatewayNodes === undefined ? null : countNodes(fastify, gatewayNodes)
    if (counted !== null)
      unwatch.push(
        meter.gauge({
          name: 'jingwei_edge_nodes',
          help: 'Nodes of this gateway as edge.gatewayNodes says, by which rate limits are divided; 0: not known.',
          collect: (set) => set({}, counted())
        })
      )
    /** Returns the number of nodes, 0 while it is not known. */
    const nodes = () => counted?.() || link?.nodes || 0

    /** Connects to Redis, and returns the function that counts how shared limits of a route are decided. */
    const shareLimits = (route: string): ((step: Step) => void) => {
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
      const decisions = meter.counter({
        name: 'jingwei_edge_rate_limit_decisions_total',
        help: 'Requests with a shared rate limit, by the step that decided: redis; lease: units that Redis has given before; known: an earlier refusal of Redis still holds; and without Redis share, open or closed.',
        labelNames: ['route', 'step']
      })
      const counts = Object.fromEntries(steps.map((step) => [step, decisions.labels(route, step)]))
      return (step) => {
        counts[step]!.inc()
        if (step === 'share' || step === 'open' || step === 'closed') fallbacks.inc()
      }
    }

    const hasBothDirections = directionsOf(config.listeners).length > 1
    const directed = (keyOf: KeyOf) => (hasBothDirections ? perDirection(keyOf) : keyOf)

    const { list, file, stored } = config.consumers
    const haveOwn = mayOverride(config, 'rateLimit')
    const own = list.flatMap(({ edge }) => edge?.rateLimit ?? [])
    const shareOwn =
      file !== null ||
      stored !== null ||
      own.some((limit) => limit !== false && !isCeiling(limit) && limit.store === 'redis')
    if (shareOwn && config.redis !== undefined) link ??= linkTo(config.redis)
    // Neither a route nor a named limit has counters with this name.
    const ownOf = haveOwn
      ? ownLimits({ stores, nodes, counted: '@', hasBothDirections }, link === undefined, log)
      : null

    return (options, route, shadow) => {
      const { name } = edgeRouteOf(route.config)!
      const counted = counterName(route, name)
      const context = { stores, nodes, counted, hasBothDirections }
      const recorder = () => shadow ?? shadowRecorder(meter, 'rate-limit', name)
      const limiterFor = (asksRedis: boolean, record: RecordRefusal) => {
        const count = asksRedis ? shareLimits(name) : () => {}
        return new Limiter({ link, nodes, now, count, record })
      }
      if (Array.isArray(options) && options.length === 0) {
        // Made for the first consumer with limits: most routes without limits never see one.
        let admit: ReturnType<typeof admitterTo> | undefined
        return withOwn({}, ownOf, (...request) => {
          if (admit === undefined) {
            const record = recorder()
            admit = admitterTo(limiterFor(link !== undefined, record), record)
          }
          admit(...request)
        })
      }
      const record = recorder()
      if (isPlain(options)) {
        const { store, by, window } = options
        // Without `max`: after a change of the limit, counting continues.
        const key = { counted, store, by, window }
        const counter = stores.claim('jingwei.rate-limit', key, () => new LocalCounter(window, now))
        const hooks = plainHooks(fastify, { options, counter, keyOf: directed(keyBy(options)) })
        return ownOf === null
          ? hooks
          : withOwn(hooks, ownOf, admitterTo(limiterFor(link !== undefined, record), record))
      }
      const limits = limitsFor(options, context)
      const asksRedis = limits.rules.some(({ shared }) => shared !== null) || (haveOwn && link !== undefined)
      return hooksFor(limits, ownOf, limiterFor(asksRedis, record), record)
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

/** Returns the function for the limits of a request's consumer; null if it has none of its own. */
function ownLimits(context: RuleContext, isWithoutRedis: boolean, log: FastifyBaseLogger) {
  const known = new WeakMap<object, Limits>()
  const none: Limits = { rules: [], ceilings: [] }
  return ({ consumer }: FastifyRequest): Limits | null => {
    const options = consumer?.edge.rateLimit
    if (options === undefined) return null
    if (options === false) return none
    let limits = known.get(options)
    if (limits === undefined) {
      const lacksRedis =
        isWithoutRedis && limitsOf(options).some((limit) => !isCeiling(limit) && limit.store === 'redis')
      if (lacksRedis)
        log.warn({ consumer: consumer!.id }, 'the limit of a consumer needs redis.url: this node counts it')
      // All its requests are counted together, on all routes.
      const all = limitsOf(options).map((limit) => ({
        ...limit,
        by: 'consumer',
        ...(lacksRedis && { store: 'memory' as const })
      }))
      limits = limitsFor(all, context)
      known.set(options, limits)
    }
    return limits
  }
}
