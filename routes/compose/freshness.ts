/** The caching fields of a composed response: the strictest of all its parts (RFC 9111). */
import type { IncomingHttpHeaders } from 'node:http'

export interface CachedPart {
  /** True for GET and HEAD. */
  readonly isSafe: boolean
  readonly headers: IncomingHttpHeaders
}

export interface Freshness {
  /** Value of `Cache-Control`. */
  readonly control: string
  /** Names of the request headers on which the parts depend. */
  readonly vary: readonly string[]
}

/** Most seconds of freshness, against numbers that no cache can represent (RFC 9111, 1.2.2). */
const mostSeconds = 2 ** 31

/**
 * Returns the caching fields. The lifetime is the shortest remaining one; a part without one makes the response
 * `no-cache`. With `isPrivate` no shared cache may store the response.
 */
export function freshnessOf(parts: readonly CachedPart[], isPrivate: boolean): Freshness {
  const each = parts.map(({ headers }) => ({ headers, directives: directivesOf(headers['cache-control']) }))
  const has = (name: string) => each.some(({ directives }) => directives.has(name))
  const vary = each.flatMap(({ headers: { vary } }) => (vary ?? '').split(',').map((name) => name.trim().toLowerCase()))
  const names = [...new Set(vary)].filter((name) => name !== '')
  if (has('no-store') || !parts.every(({ isSafe }) => isSafe)) return { control: 'no-store', vary: names }
  const own = Math.min(...each.map(({ headers, directives }) => remaining(headers, directives, ['max-age'])))
  const shared = Math.min(
    ...each.map(({ headers, directives }) => remaining(headers, directives, ['s-maxage', 'max-age']))
  )
  const isOwn = isPrivate || has('private')
  const lifetime = [
    `max-age=${own}`,
    ...(!isOwn && shared !== own ? [`s-maxage=${shared}`] : []),
    ...(has('must-revalidate') ? ['must-revalidate'] : []),
    ...(!isOwn && has('proxy-revalidate') ? ['proxy-revalidate'] : [])
  ]
  const isStale = has('no-cache') || (own === 0 && (isOwn || shared === 0))
  const isPublic = each.every(({ directives }) => directives.has('public'))
  const control = [
    ...(isOwn ? ['private'] : isPublic ? ['public'] : []),
    ...(isStale ? ['no-cache'] : lifetime),
    ...(has('no-transform') ? ['no-transform'] : [])
  ]
  return { control: control.join(', '), vary: names.includes('*') ? ['*'] : names }
}

type Directives = ReadonlyMap<string, string>

function directivesOf(field: string | undefined): Directives {
  const directives = new Map<string, string>()
  for (const [, name = '', quoted, plain = ''] of (field ?? '').matchAll(
    /([\w-]+)(?:\s*=\s*(?:"([^"]*)"|([^\s,"]*)))?/g
  )) {
    const value = quoted ?? plain
    // `private` and `no-cache` with names of fields concern these fields, which do not pass; the strict reading is simpler.
    if (!directives.has(name.toLowerCase())) directives.set(name.toLowerCase(), value)
  }
  return directives
}

/** Returns the seconds for which a part is fresh; 0 if it does not tell. */
function remaining(headers: IncomingHttpHeaders, directives: Directives, names: readonly string[]): number {
  const name = names.find((each) => directives.has(each))
  const lifetime = name === undefined ? expiryOf(headers) : secondsOf(directives.get(name))
  return Math.max(0, Math.min(lifetime, mostSeconds) - secondsOf(headers.age))
}

const secondsOf = (text: string | undefined) => (text !== undefined && /^\d+$/.test(text) ? Number(text) : 0)

function expiryOf({ expires, date }: IncomingHttpHeaders): number {
  const [end, begin] = [Date.parse(expires ?? ''), Date.parse(date ?? '')]
  return Number.isNaN(end) || Number.isNaN(begin) ? 0 : Math.max(0, Math.floor((end - begin) / 1000))
}
