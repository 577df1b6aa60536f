/** Stored responses: which ones are stored, for how long they are fresh, and how a 304 updates them (RFC 9111, 3 and 4). */
import type { IncomingHttpHeaders } from 'node:http'
import { hopByHop } from '../../../http-syntax.ts'
import { nominated } from '../../protocol/headers.ts'
import type { Asked } from './asked.ts'
import { digest, encode, normalized } from './asked.ts'
import type { Directives } from './directives.ts'
import { ageOf, dateOf, directivesOf, namesOf, secondsOf } from './directives.ts'
import type { CacheOptions } from './options.ts'
import { heuristicallyFresh, neverStored, understood } from './statuses.ts'

/** A response without its body. Times are in milliseconds since 1970, durations in milliseconds. */
export interface StoredHead {
  readonly key: string
  readonly route: string
  readonly resource: string
  readonly url: string
  readonly path: string
  readonly host: string
  readonly tags: readonly string[]
  /** Names in `Vary`, and the digest of the values that the request had. */
  readonly varyNames: readonly string[]
  readonly varyValues: string
  readonly status: number
  readonly text: string
  readonly headers: IncomingHttpHeaders
  /** Origin of the instance, by which `Location` is translated. */
  readonly instance: string | null
  /** True if the response says that it is the same for all callers. */
  readonly isPublic: boolean
  readonly storedAt: number
  /** Age when it was stored. */
  readonly initialAge: number
  readonly lifetime: number
  /** True if it may be used only after the service has confirmed it. */
  readonly noCache: boolean
  /** True if it must not be used once it has expired. */
  readonly mustRevalidate: boolean
  readonly whileRevalidate: number
  readonly ifError: number
}

export interface StoredResponse extends StoredHead {
  readonly body: Buffer
}

/** Facts about the fetch that led to a response. */
export interface Fetched {
  readonly route: string
  readonly instance: string | null
  /** Time of the request and of the header section. */
  readonly sentAt: number
  readonly now: number
}

const longestHeuristic = 24 * 3_600_000
const maxTags = 64

const dropped: ReadonlySet<string> = new Set([
  ...hopByHop,
  'age',
  'proxy-status',
  'proxy-authentication-info',
  'set-cookie'
])

/** Returns the header section of a response that may be stored; null if it must not be. */
export function storable(
  asked: Asked,
  options: CacheOptions,
  status: number,
  headers: IncomingHttpHeaders,
  text: string,
  fetched: Fetched
): StoredHead | null {
  if (status === 206) {
    const complete = completeHeaders(asked, headers)
    return complete === null ? null : storable(asked, options, 200, complete, 'OK', fetched)
  }
  if (status < 200 || neverStored.has(status)) return null
  // The service may have responded to the condition or the range, which are no part of the key.
  if (status !== 200 && hasConditions(asked)) return null
  if (asked.directives.has('no-store')) return null
  // With several validators there is none: a condition or a range could match the wrong one.
  if (Array.isArray(headers.etag) || Array.isArray(headers['last-modified'])) return null
  const directives = directivesOf(headers['cache-control'])
  if (directives.has('private') || forbidsStoring(directives, status)) return null
  const varyNames = variesBy(headers)
  if (varyNames === null || varyNames.includes('*')) return null
  if (headers['set-cookie'] !== undefined && options.setCookie !== 'strip') return null
  const isPublic = directives.has('public') || directives.has('s-maxage')
  if (asked.isPersonal && !isPublic) return null
  const lifetime = lifetimeOf(options, status, headers, directives, fetched.now)
  const initialAge = initialAgeOf(headers, fetched)
  const noCache = directives.has('no-cache')
  const hasValidator = headers.etag !== undefined || headers['last-modified'] !== undefined
  const { staleWhileRevalidate = 0, staleIfError = 0 } = options
  const whileRevalidate = (secondsOf(directives, 'stale-while-revalidate') ?? staleWhileRevalidate / 1000) * 1000
  const ifError = (secondsOf(directives, 'stale-if-error') ?? staleIfError / 1000) * 1000
  if (lifetime === null) return null
  if ((noCache || lifetime <= initialAge) && !hasValidator && whileRevalidate + ifError === 0) return null
  return {
    key: isPublic ? asked.publicKey : asked.ownKey,
    route: fetched.route,
    resource: asked.resource,
    url: asked.url,
    path: asked.path,
    host: asked.host,
    tags: tagsOf(headers),
    varyNames,
    varyValues: varyValues(varyNames, asked.headers),
    status,
    text,
    headers: endToEnd(headers, fetched.now),
    instance: fetched.instance,
    isPublic,
    storedAt: fetched.now,
    initialAge,
    lifetime,
    noCache,
    mustRevalidate:
      directives.has('must-revalidate') || directives.has('proxy-revalidate') || directives.has('s-maxage'),
    whileRevalidate,
    ifError
  }
}

/** Returns whether the service may have responded to a condition or a range of the client. */
export const hasConditions = ({ headers }: Asked) =>
  headers.has('range') || headers.has('if-none-match') || headers.has('if-modified-since')

/**
 * Returns the header section of a 206 as that of a 200, if the range is the complete body (RFC 9111, 3.4); else null. Without
 * a strong validator it could be a mix of versions. With `If-Range` it may lack fields.
 */
function completeHeaders({ headers: asked }: Asked, headers: IncomingHttpHeaders): IncomingHttpHeaders | null {
  const { 'content-range': range, 'content-length': length, etag, ...rest } = headers
  const total = /^bytes 0-(\d{1,15})\/(\d{1,15})$/.exec(range ?? '')
  const isComplete = total !== null && Number(total[1]) + 1 === Number(total[2]) && total[2] === length
  const isStrong = etag !== undefined && /^"[^"]*"$/.test(etag)
  return isComplete && isStrong && !asked.has('if-range') ? { ...rest, etag, 'content-length': length } : null
}

/** Returns the names by which a response varies; null if they cannot be parsed. */
function variesBy(headers: IncomingHttpHeaders): readonly string[] | null {
  const names = namesOf(headers.vary)
  if (headers['content-encoding'] === undefined || names === null || names.includes('accept-encoding')) return names
  // Services that compress often forget to say so, and other clients could not read the response.
  return [...names, 'accept-encoding']
}

/** `must-understand` allows storing in spite of `no-store`, if the status is understood (RFC 9111, 5.2.2.3). */
function forbidsStoring(directives: Directives, status: number): boolean {
  if (directives.has('must-understand')) return !understood.has(status)
  return directives.has('no-store')
}

/** Returns the time for which a response is fresh; null if nothing says that it may be stored. */
function lifetimeOf(
  { ttl, heuristic }: CacheOptions,
  status: number,
  headers: IncomingHttpHeaders,
  directives: Directives,
  now: number
): number | null {
  const seconds = secondsOf(directives, 's-maxage') ?? secondsOf(directives, 'max-age')
  if (seconds !== undefined) return seconds * 1000
  const date = dateOf(headers.date) ?? now
  // Of several values, the first one would be a guess: the response has expired.
  if (headers.expires !== undefined) return Math.max(0, (dateOf(headers.expires) ?? 0) - date)
  if (directives.has('no-cache')) return 0
  const fixed = ttl?.[status]
  if (fixed !== undefined) return fixed
  const modified = dateOf(headers['last-modified'])
  if (heuristic && modified !== null && (heuristicallyFresh.has(status) || directives.has('public')))
    return Math.min(longestHeuristic, Math.max(0, date - modified) * heuristic)
  return directives.has('public') ? 0 : null
}

/** Age at the arrival of a response (RFC 9111, 4.2.3). */
function initialAgeOf(headers: IncomingHttpHeaders, { sentAt, now }: Fetched): number {
  const date = dateOf(headers.date)
  // `Date` has no fractions of a second.
  const apparent = date === null ? 0 : Math.floor(Math.max(0, now - date) / 1000) * 1000
  return Math.max(apparent, ageOf(headers) * 1000 + (now - sentAt))
}

export const ageNow = ({ initialAge, storedAt }: StoredHead, now: number): number =>
  initialAge + Math.max(0, now - storedAt)

/** Digest of a request's values for the names of a `Vary`. */
export function varyValues(names: readonly string[], headers: ReadonlyMap<string, string>): string {
  if (names.length === 0) return ''
  return digest(names.map((name) => valueText(name, headers.get(name))).join(''))
}

const valueText = (name: string, value: string | undefined): string =>
  value === undefined ? '-' : encode(normalized(name, value))

function endToEnd(headers: IncomingHttpHeaders, now: number): IncomingHttpHeaders {
  const alsoDrop = nominated(headers.connection)
  const kept: IncomingHttpHeaders = {}
  for (const [name, value] of Object.entries(headers))
    if (!dropped.has(name) && !alsoDrop?.has(name)) kept[name] = value
  kept.date ??= new Date(now).toUTCString()
  return kept
}

export const tagHeaders = ['surrogate-key', 'cache-tag'] as const

/** Returns the tags of a response: separated by spaces in `Surrogate-Key`, by commas in `Cache-Tag`. */
function tagsOf(headers: IncomingHttpHeaders): string[] {
  const keys = String(headers['surrogate-key'] ?? '').split(/\s+/)
  const tags = String(headers['cache-tag'] ?? '').split(/\s*,\s*/)
  return [...new Set([...keys, ...tags])].filter((tag) => tag !== '').slice(0, maxTags)
}

/** Fields of a stored response that a 304 does not replace: they describe the stored body (RFC 9111, 3.2). */
const ofBody: ReadonlySet<string> = new Set(['content-length', 'content-encoding', 'content-range', 'content-md5', 'content-digest', 'repr-digest', 'digest']) // biome-ignore format: a list

/** Returns the header section that a stored response has after a 304, as if the service had sent it with the body. */
export function updatedHeaders(stored: StoredHead, headers: IncomingHttpHeaders): IncomingHttpHeaders {
  const { 'set-cookie': _cookie, age: _age, ...rest } = stored.headers
  const updated: IncomingHttpHeaders = { ...rest }
  for (const [name, value] of Object.entries(headers)) if (!ofBody.has(name)) updated[name] = value
  if (rest.etag !== undefined) updated.etag = rest.etag
  return updated
}
