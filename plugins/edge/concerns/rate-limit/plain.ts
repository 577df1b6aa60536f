/**
 * The simple limits, by @fastify/rate-limit: one fixed window, in this process. Requests within the limit are counted here,
 * with the headers of the plugin; this saves 5 µs per request.
 */
import type { FastifyRateLimitOptions, FastifyRateLimitStore } from '@fastify/rate-limit'
import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { RouteHooks } from '../../route-hooks.ts'
import type { KeyOf } from './keys.ts'
import { reasonOf } from './keys.ts'
import type { Done } from './limiter.ts'
import { RateLimited } from './limiter.ts'
import type { LimitOptions, RateLimitOptions } from './options.ts'
import { isCeiling } from './options.ts'
import type { LocalCounter } from './store.ts'

/** Options of the simple limits. */
const plainKeys: ReadonlySet<string> = new Set(['max', 'window', 'by', 'store', 'ipv6Prefix', 'mode'])

export function isPlain(options: RateLimitOptions): options is LimitOptions {
  if (Array.isArray(options) || isCeiling(options) || options.store !== 'memory' || Array.isArray(options.by))
    return false
  return options.mode !== 'shadow' && Object.keys(options).every((key) => plainKeys.has(key))
}

export const registerPlugin = (fastify: FastifyInstance) =>
  fastify.register(rateLimit, {
    global: false,
    enableDraftSpec: true,
    skipOnError: true,
    store: RouteCounters,
    errorResponseBuilder: (_request, { after }) => new RateLimited(after)
  })

interface PlainLimit {
  readonly options: LimitOptions
  readonly counter: LocalCounter
  readonly keyOf: KeyOf
}

type PluginOptions = Parameters<FastifyInstance['rateLimit']>[0] & { counter: LocalCounter }
type PluginHook = (request: FastifyRequest, reply: FastifyReply) => Promise<void>

/** Returns the hooks of a route with a simple limit. */
export function plainHooks(fastify: FastifyInstance, limit: PlainLimit): RouteHooks {
  const { options, counter, keyOf } = limit
  const { max, window, by } = options
  const errorResponseBuilder: PluginOptions['errorResponseBuilder'] = (request, { after }) => {
    request.refusalReason = reasonOf(by, request)
    return new RateLimited(after)
  }
  const pluginOptions = { max, timeWindow: window, keyGenerator: keyOf, counter, errorResponseBuilder }
  // Made by the first request that exceeds the limit: the plugin needs much memory per route.
  let plugin: PluginHook | undefined
  const admit = (request: FastifyRequest, reply: FastifyReply, done: Done): void => {
    let count: ReturnType<LocalCounter['admit']>
    try {
      count = counter.admit(keyOf(request), max)
    } catch (error) {
      done(error as Error)
      return
    }
    if (count === null) {
      plugin ??= fastify.rateLimit(pluginOptions as unknown as PluginOptions) as PluginHook
      plugin(request, reply).then(() => done(), done)
      return
    }
    reply.header('ratelimit-limit', max)
    reply.header('ratelimit-remaining', max - count.current)
    reply.header('ratelimit-reset', Math.ceil(count.ttl / 1000))
    done()
  }
  if (by !== 'consumer' && !String(by).startsWith('claim:')) return { onRequest: admit }
  return { preParsing: (request, reply, _payload, done) => admit(request, reply, done) }
}

/** Store of @fastify/rate-limit, which calls `child` for each route: returns the counter that was made for the route. */
class RouteCounters implements FastifyRateLimitStore {
  incr(): void {
    throw new Error('only child stores of routes count')
  }

  child(options: FastifyRateLimitOptions): FastifyRateLimitStore {
    return (options as unknown as { counter: FastifyRateLimitStore }).counter
  }
}
