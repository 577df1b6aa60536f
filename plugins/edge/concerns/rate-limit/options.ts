/** `edge.rateLimit`: its options. */
import type { Static } from 'typebox'
import { Count, Either, HeaderName, Mode, Name, Names, Period, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { tokenPattern } from '../../../http-syntax.ts'
import type { AlgorithmName } from './algorithms.ts'

const Source = Type.String({
  pattern: `^(ip|consumer|route|header:${tokenPattern}|claim:.+)$`,
  expected: 'ip, consumer, route, header:NAME or claim:NAME'
})

export type By = string | string[]

/** Returns the sources of a key, as a list. */
export const sourcesOf = (by: By | undefined): readonly string[] => [by ?? 'ip'].flat()

const algorithmNames: AlgorithmName[] = ['fixed-window', 'sliding-window', 'token-bucket']

const keyOptions = {
  by: Either({ type: 'array' }, Type.Array(Source, { minItems: 1, maxItems: 5 }), Source, {
    default: 'ip',
    description:
      'Requests that are counted together: those of one client address (`ip`), one `consumer`, one value of a header (`header:NAME`) or of a claim (`claim:tenant`, `claim:org.id`), or all (`route`). A list: those that have all of these in common. A source that a request lacks is replaced by its address.'
  }),
  ipv6Prefix: Type.Optional(Count('Bits of an IPv6 address that identify a client. Default: 64.', { maximum: 128 })),
  name: Type.Optional({ ...Name, description: 'Routes whose limits have the same name share their counters.' }),
  share: Type.Optional(
    Type.Boolean({
      description:
        'true: each node applies the limit divided by the number of nodes (`edge.gatewayNodes`), so that all nodes together keep it without Redis. Needs a load balancer that spreads the requests of each caller evenly.'
    })
  ),
  mode: Type.Optional(Mode)
}

const Rate = Type.Object(
  {
    max: Type.Integer({ minimum: 1, description: 'Requests allowed per window.' }),
    window: Period('Length of the window, up to months: `1s`, `1h`, `30d`.'),
    ...keyOptions,
    algorithm: Type.Optional(
      Names(algorithmNames, {
        description:
          '`fixed-window` (default): the window begins with the first request of a key. `sliding-window`: counts the last window at any time. `token-bucket`: `max` per window flow into a bucket of the size `burst`.'
      })
    ),
    burst: Type.Optional(Count('With `token-bucket`: requests allowed at once. Default: `max`.')),
    cost: Type.Optional(Count('Units of the limit that one request uses. Default: 1.')),
    costHeader: Type.Optional(
      HeaderName(
        "Response header of the service with the units that the request has used, if these are more than `cost`. They are counted after the response: a request that is let in may exceed the limit, by at most the limit's size."
      )
    ),
    keepCostHeader: Type.Optional(
      Type.Boolean({ description: 'true: clients get the `costHeader`. By default it is removed.' })
    ),
    maxPerAddress: Type.Optional(
      Count(
        'With `header:NAME`: requests allowed per window for one client address, whatever the value of the header. Without it, a client that changes the header has no limit.'
      )
    ),
    headers: Type.Optional(
      Names(['separate', 'ietf', 'x-ratelimit', 'none'], {
        description:
          'Response headers with the state of the limit. `separate` (default): `RateLimit-Limit`, `-Remaining` and `-Reset`. `ietf`: `RateLimit` and `RateLimit-Policy`. `x-ratelimit`: `X-RateLimit-Limit`, `-Remaining` and `-Reset`. A refusal always has `Retry-After`.'
      })
    ),
    store: Names(['memory', 'redis'], {
      default: 'memory',
      description:
        '`memory`: each node counts on its own, also with `share: true`. `redis`: one count for the whole cluster.'
    }),
    lease: Type.Optional(
      Count(
        'With `store: redis`: units that a node takes from Redis at a time, and then uses without asking. The limit may be exceeded by as many units for each node, with `sliding-window` and `token-bucket` only, and units that a node has taken are missing on the others: until the window ends, with `token-bucket` until the node uses them.'
      )
    ),
    onFailure: Type.Optional(
      Names(['share', 'open', 'closed'], {
        description:
          'With `store: redis`, while Redis does not respond in time. `share` (default): each node applies the limit divided by the number of nodes (`edge.gatewayNodes`, else those that have announced themselves in Redis); the whole limit while that number is not known. `open`: requests are not limited. `closed`: 503.'
      })
    )
  },
  strict
)

const Concurrency = Type.Object(
  {
    maxConcurrent: Count(
      'Instead of `max` and `window`: requests in flight at a time, on each node; with `share: true` on all nodes together.'
    ),
    ...keyOptions
  },
  strict
)

const Limit = Either(
  { type: 'object', properties: { maxConcurrent: {} }, required: ['maxConcurrent'] },
  Concurrency,
  Rate
)

const several = { minItems: 1, maxItems: 8 }

/** One limit, or a list: a request has to be within all. */
export const RateLimit = Either({ type: 'array' }, Type.Array(Limit, several), Limit)

/** A limit of requests per window. */
export type LimitOptions = Static<typeof Rate>
/** A limit of requests in flight. */
export type CeilingOptions = Static<typeof Concurrency>
export type AnyLimit = LimitOptions | CeilingOptions
export type RateLimitOptions = AnyLimit | AnyLimit[]

export const isCeiling = (limit: AnyLimit): limit is CeilingOptions => 'maxConcurrent' in limit

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    rateLimit?: RateLimitOptions | false
  }
}

/** Returns the limits as a list. */
export const limitsOf = (options: RateLimitOptions): readonly AnyLimit[] => [options].flat()

/** Returns whether a key, or a part of it, is a claim. */
export const isOfClaim = (by: unknown): boolean => [by].flat().some((source) => String(source).startsWith('claim:'))

/** Returns whether a key, or a part of it, is known only after authentication. */
export const isOfCaller = (by: unknown): boolean => isOfClaim(by) || [by].flat().includes('consumer')

/** Returns a text that is equal for limits of one route with the same counters. */
export function counterOf(limit: AnyLimit): string {
  if (isCeiling(limit)) return JSON.stringify([limit.by, limit.name])
  const { by, window, algorithm = 'fixed-window', name, store } = limit
  return JSON.stringify([by, window, algorithm, name, store])
}
