/** The caching fields of a composed response: the strictest of all its parts (RFC 9111). */
import type { IncomingHttpHeaders } from 'node:http'
import { listField, soleField } from './response-fields.ts'

/** The caching fields of a part. */
export interface CachedPart {
  /** True for GET and HEAD. */
  readonly isSafe: boolean
  readonly directives: ReadonlyMap<string, string>
  /** Seconds for which a client may use the part. */
  readonly own: number
  /** Seconds for which a shared cache may use the part. */
  readonly shared: number
  readonly vary: readonly string[]
}

export interface Freshness {
  /** Value of `Cache-Control`. */
  readonly control: string
  /** Names of the request headers on which the parts depend. */
  readonly vary: readonly string[]
}

/** Most seconds of freshness, against numbers that no cache can represent (RFC 9111, 1.2.2). */
const mostSeconds = 2 ** 31

/** The caching fields of a response. */
const fields = ['cache-control', 'vary', 'expires']

/** Parts of responses without such fields. */
const unmarked: CachedPart = { isSafe: false, directives: new Map(), own: 0, shared: 0, vary: [] }
const unmarkedSafe: CachedPart = { ...unmarked, isSafe: true }

/** Reads the caching fields of a response. */
export function cachedPart(headers: IncomingHttpHeaders, isSafe: boolean): CachedPart {
  if (!fields.some((name) => headers[name] !== undefined)) return isSafe ? unmarkedSafe : unmarked
  const directives = directivesOf(listField(headers, 'cache-control'))
  const vary = listField(headers, 'vary').split(',')
  return {
    isSafe,
    directives,
    own: remaining(headers, directives, ['max-age']),
    shared: remaining(headers, directives, ['s-maxage', 'max-age']),
    vary: vary.map((name) => name.trim().toLowerCase()).filter((name) => name !== '')
  }
}

/**
 * Returns the caching fields. The lifetime is the shortest remaining one; a part without one makes the response
 * `no-cache`. With `isPrivate` no shared cache may store the response.
 */
export function freshnessOf(parts: readonly CachedPart[], isPrivate: boolean): Freshness {
  const has = (name: string) => parts.some(({ directives }) => directives.has(name))
  const names = [...new Set(parts.flatMap(({ vary }) => vary))]
  if (has('no-store') || !parts.every(({ isSafe }) => isSafe)) return { control: 'no-store', vary: names }
  const own = Math.min(...parts.map((part) => part.own))
  const shared = Math.min(...parts.map((part) => part.shared))
  const isOwn = isPrivate || has('private')
  const lifetime = [
    `max-age=${own}`,
    ...(!isOwn && shared !== own ? [`s-maxage=${shared}`] : []),
    ...(has('must-revalidate') ? ['must-revalidate'] : []),
    ...(!isOwn && has('proxy-revalidate') ? ['proxy-revalidate'] : [])
  ]
  const isStale = has('no-cache') || (own === 0 && (isOwn || shared === 0))
  const isPublic = parts.every(({ directives }) => directives.has('public'))
  const control = [
    ...(isOwn ? ['private'] : isPublic ? ['public'] : []),
    ...(isStale ? ['no-cache'] : lifetime),
    ...(has('no-transform') ? ['no-transform'] : [])
  ]
  return { control: control.join(', '), vary: names.includes('*') ? ['*'] : names }
}

function directivesOf(field: string) {
  const directives = new Map<string, string>()
  for (const [, name = '', quoted, plain = ''] of field.matchAll(/([\w-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?/g)) {
    const value = quoted ?? plain
    // `private` and `no-cache` with names of fields concern these fields, which do not pass; the strict reading is simpler.
    if (!directives.has(name.toLowerCase())) directives.set(name.toLowerCase(), value)
  }
  return directives
}

/** Returns the seconds for which a part is fresh; 0 if it does not tell. */
function remaining(
  headers: IncomingHttpHeaders,
  directives: CachedPart['directives'],
  names: readonly string[]
): number {
  const name = names.find((each) => directives.has(each))
  const lifetime = name === undefined ? expiryOf(headers) : secondsOf(directives.get(name))
  return Math.max(0, Math.min(lifetime, mostSeconds) - secondsOf(soleField(headers, 'age')))
}

const secondsOf = (text = '') => (/^\d+$/.test(text) ? Number(text) : 0)

function expiryOf(headers: IncomingHttpHeaders): number {
  const [end = Number.NaN, begin = Number.NaN] = ['expires', 'date'].map((name) => Date.parse(soleField(headers, name)))
  return Number.isNaN(end) || Number.isNaN(begin) ? 0 : Math.max(0, Math.floor((end - begin) / 1000))
}
