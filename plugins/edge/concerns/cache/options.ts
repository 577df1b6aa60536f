/** `edge.cache`: its options and their check. */
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { canonicalName } from '../../../../config/header-names.ts'
import { Duration, DurationOrZero, HeaderName, Names, Share, Size, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import { neverStored } from './statuses.ts'

const names = (description: string) =>
  Type.Optional(Type.Array(HeaderName(''), { minItems: 1, maxItems: 50, description }))

const Key = Type.Object(
  {
    headers: names(
      'Request headers that distinguish responses although the gateway takes them for harmless, such as `user-agent`.'
    ),
    ignoreHeaders: names(
      'Request headers on which no response depends. The service gets them, so one that depends on them after all would give one client’s response to others.'
    ),
    ignoreQuery: Type.Optional(
      Type.Array(Type.String({ minLength: 1 }), {
        minItems: 1,
        maxItems: 50,
        description:
          'Query parameters on which no response depends, such as `utm_source`; a `*` at the end stands for any text. The service gets them.'
      })
    ),
    sortQuery: Type.Optional(Type.Boolean({ description: 'true: the order of query parameters makes no difference.' })),
    consumer: Type.Optional(
      Type.Boolean({
        description:
          'true: callers with credentials have responses of their own, of which no other caller gets one. Without it, only responses with `public` or `s-maxage` are stored for requests with credentials.'
      })
    )
  },
  { ...strict, description: 'Parts of requests that distinguish responses, besides host, path and query.' }
)

export const Cache = Type.Object(
  {
    store: Names(['memory', 'redis'], {
      description:
        '`memory`: each process has stored responses of its own. `redis`: all nodes of the gateway share them in the Redis of the top-level `redis`.',
      default: 'memory'
    }),
    maxSize: Size(
      'Memory of the stored responses, in each process. Routes with the same `maxSize` share it. With `store: redis`: memory of responses that are being received or written; Redis limits the others itself (`maxmemory`).',
      { default: '64mb' }
    ),
    maxEntry: Size('Largest body that is stored.', { default: '1mb' }),
    ttl: Type.Optional(
      Type.Unsafe<Record<string, number>>({
        type: 'object',
        patternProperties: { '^.+$': Duration('') },
        additionalProperties: false,
        minProperties: 1,
        description:
          'Time by status for responses without `max-age`, `s-maxage` and `Expires`: `{ 200: 60s, 404: 5s }`. Responses with `no-store`, `no-cache` or `private` are not affected.'
      })
    ),
    heuristic: Type.Optional(
      Share(
        'Share of the time since `Last-Modified` for which a response without other times is fresh, at most one day (RFC 9111, 4.2.2). Usual: `10%`. By default there is none.'
      )
    ),
    staleWhileRevalidate: Type.Optional(
      Duration(
        'Time for which an expired response is still sent, while the gateway fetches a new one. `stale-while-revalidate` of the response wins.'
      )
    ),
    staleIfError: Type.Optional(
      Duration(
        'Time for which an expired response is sent if the service fails or responds with 500, 502, 503 or 504. `stale-if-error` of the response wins.'
      )
    ),
    key: Type.Optional(Key),
    setCookie: Type.Optional(
      Names(['refuse', 'strip'], {
        description:
          '`refuse` (default): responses with `Set-Cookie` are not stored. `strip`: they are stored without it; only the caller that caused the fetch gets the cookie.'
      })
    ),
    requestDirectives: Type.Optional(
      Names(['obey', 'ignore'], {
        description:
          '`obey` (default): `Cache-Control` of requests is obeyed, so that a reload in a browser asks the service. `ignore`: clients cannot bypass the cache; only `only-if-cached` has an effect.'
      })
    ),
    coalesce: DurationOrZero(
      'Time for which requests wait for the response to an equal one, instead of fetching it themselves. 0: they do not wait.',
      { default: '5s' }
    ),
    cacheStatus: Type.Optional(
      Names(['on', 'key', 'off'], {
        description: '`Cache-Status` in responses (RFC 9211). `key`: with the digest of the key. Default: `on`.'
      })
    ),
    keepTags: Type.Optional(
      Type.Boolean({
        description: 'false: clients do not get `Surrogate-Key` and `Cache-Tag`, the tags for purging. Default: true.'
      })
    )
  },
  { ...strict, description: 'Shared cache of responses (RFC 9111).' }
)

export type CacheOptions = Static<typeof Cache>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    cache?: CacheOptions | false
  }
}

/** Returns whether callers have responses of their own. */
export const isByConsumer = (key: unknown): boolean => (key as CacheOptions['key'])?.consumer === true

/** Headers that always distinguish requests, or that the cache itself obeys. */
const essential = new Set(['host', 'authorization', 'cookie', 'range', 'if-range', 'if-match', 'if-none-match', 'if-modified-since', 'if-unmodified-since', 'cache-control']) // biome-ignore format: a list

/** Longest time by status without a warning: a response that was wrong for a moment would stay for longer. */
const longestTtl = 24 * 3_600_000

export function checkCache(options: CacheOptions, at: string, { data, report }: Checked): void {
  const { store, maxSize, maxEntry, ttl = {}, key = {} } = options
  if (store === 'redis' && data.redis === undefined)
    report.fault(`${at}/store`, 'needs the top-level "redis", which is not set')
  if (report.sound(`${at}/maxEntry`) && report.sound(`${at}/maxSize`) && maxEntry > maxSize / 4) {
    report.fault(`${at}/maxEntry`, 'is more than a quarter of maxSize, so a few responses would replace all others')
  }
  for (const [status, time] of Object.entries(ttl)) {
    const place = pointer(at, 'ttl', status)
    if (!report.sound(place)) continue
    if (!/^[2-5]\d\d$/.test(status)) report.fault(place, 'expected a status from 200 to 599', 'key')
    else if (status === '206' || neverStored.has(Number(status)))
      report.warn(place, `no effect: a response with ${status} is never stored`, 'key')
    else if (time > longestTtl) {
      report.warn(place, 'is more than a day: without max-age of its own, a response can be removed only by a purge')
    }
  }
  for (const [index, name] of (key.ignoreHeaders ?? []).entries()) {
    if (!essential.has(canonicalName(name))) continue
    const advice = 'responses that are the same for all callers need Cache-Control: public'
    report.fault(pointer(at, 'key', 'ignoreHeaders', index), `${name} cannot be ignored; ${advice}`)
  }
}

/** Warns of routes on which no request can be answered from the cache. */
export function checkRoutes({ data, report }: Checked): void {
  if (!report.usable('/routes')) return
  for (const [index, route] of data.routes.entries()) {
    if (!report.usable(pointer('/routes', index))) continue
    const { match, edge } = route
    const at = pointer('/routes', index, 'edge', 'cache')
    if (!report.usable(at) || !report.sound(pointer('/routes', index, 'match'))) continue
    const { methods } = match
    const isUseless = methods !== undefined && !methods.includes('GET') && !methods.includes('HEAD')
    if (edge?.cache && isUseless)
      report.warn(at, 'no effect: only GET and HEAD are cached, and the route has neither', 'key')
  }
}
