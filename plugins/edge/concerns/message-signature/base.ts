/** The signature base of HTTP Message Signatures (RFC 9421, 2): the text that is signed. */
import type { FastifyRequest } from 'fastify'
import type { InnerList, Item, Parameters } from 'structured-headers'
import { onFirstUse } from '../../../on-first-use.ts'
import { authorityOf, signedValues } from '../../authentication/signed-fields.ts'
import type { Peers } from '../../protocol/peers.ts'

export const structured = onFirstUse<typeof import('structured-headers')>('structured-headers')

/** Most components of one signature: each is searched in the header section. */
const MOST_COMPONENTS = 64

/** Returns what a client has signed as scheme and authority: those of the proxy in front, if it is trusted to say. */
function originOf(request: FastifyRequest, peers: Peers): { scheme: string; authority: string } {
  const { raw } = request
  const trusted = peers.trustedHeadersOf(raw)?.names
  const forwarded = (name: string): string | undefined => {
    const values = trusted?.has(name) ? signedValues(request, name) : null
    return values?.length === 1 && /^[^\s,]+$/.test(values[0]!) ? values[0]!.toLowerCase() : undefined
  }
  const own = (raw.socket as { encrypted?: boolean }).encrypted === true ? 'https' : 'http'
  const scheme = forwarded('x-forwarded-proto') ?? own
  const authority = forwarded('x-forwarded-host') ?? authorityOf(request).toLowerCase()
  return { scheme, authority: authority.replace(scheme === 'https' ? /:443$/ : /:80$/, '') }
}

/** Returns a text as WHATWG's `application/x-www-form-urlencoded` percent-encode set encodes it. */
const encoded = (text: string): string =>
  encodeURIComponent(text.toWellFormed()).replace(
    /[!'()~]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`
  )

/** Returns the value of the only query parameter of a name; null if there is none, or more than one. */
function queryParameter(query: string, name: string): string | null {
  const found = [...new URLSearchParams(query)].filter(([each]) => encoded(each) === name)
  return found.length === 1 ? encoded(found[0]![1]) : null
}

/** Returns the value of a derived component; null if a request has none of this name. */
function derived(request: FastifyRequest, name: string, parameters: Parameters, peers: Peers): string | null {
  const { raw, method, originalUrl } = request
  const url = raw.url!
  const at = url.indexOf('?')
  const [path, query] = at === -1 ? [url, ''] : [url.slice(0, at), url.slice(at)]
  const named = parameters.get('name')
  if (name === '@query-param') {
    return parameters.size === 1 && typeof named === 'string' ? queryParameter(query, named) : null
  }
  if (parameters.size > 0) return null
  const { scheme, authority } = originOf(request, peers)
  switch (name) {
    case '@method':
      return method
    case '@target-uri':
      return `${scheme}://${authority}${url}`
    case '@authority':
      return authority
    case '@scheme':
      return scheme
    case '@request-target':
      // An absolute URL, as it was sent.
      return originalUrl.startsWith('/') ? url : originalUrl
    case '@path':
      return path
    case '@query':
      return query === '' ? '?' : query
    default:
      return null
  }
}

/** Returns the value of a field by the parameters `sf`, `key` and `bs`; null if it has none, or a service could read another one. */
function fieldValue(request: FastifyRequest, name: string, parameters: Parameters): string | null {
  const values = signedValues(request, name)
  if (values === null || values.length === 0) return null
  // The service gets the cookies of HTTP/2 in one field (RFC 9113, 8.2.3).
  const isSplit = name === 'cookie' && request.raw.httpVersionMajor > 1
  const trimmed = values.map((value) => value.trim())
  const joined = trimmed.join(isSplit ? '; ' : ', ')
  if (parameters.size === 0) return joined
  const [kind, argument] = [...parameters][0]!
  if (parameters.size > 1) return null
  if (kind === 'bs' && argument === true) {
    return trimmed.map((value) => `:${Buffer.from(value, 'latin1').toString('base64')}:`).join(', ')
  }
  const {
    parseDictionary,
    parseList,
    serializeDictionary,
    serializeInnerList,
    serializeItem,
    serializeList,
    isInnerList
  } = structured()
  if (kind === 'key' && typeof argument === 'string') {
    const member = parseDictionary(joined).get(argument)
    if (member === undefined) return null
    return isInnerList(member) ? serializeInnerList(member) : serializeItem(member)
  }
  if (kind !== 'sf' || argument !== true) return null
  // An item is a list of one member.
  try {
    return serializeList(parseList(joined))
  } catch {
    return serializeDictionary(parseDictionary(joined))
  }
}

/** Components that a signature covers, each by its whole value. */
export interface Base {
  readonly covered: ReadonlySet<string>
  readonly text: string
}

/** Returns a name for equal components: their parameters may have another order. */
const identityOf = ([name, parameters]: Item): string => JSON.stringify([name, [...parameters].map(String).sort()])

/**
 * Returns the signature base for a member of `Signature-Input`. Null if a component is missing, unknown, repeated, or not a
 * component of requests, such as `@status` and those with the parameters `req` and `tr`; or if a service could read another
 * value than the signed one.
 */
export function signatureBase(request: FastifyRequest, input: InnerList, peers: Peers): Base | null {
  const { serializeItem, serializeInnerList } = structured()
  const [items] = input
  if (items.length > MOST_COMPONENTS || new Set(items.map(identityOf)).size < items.length) return null
  const covered = new Set<string>()
  const lines: string[] = []
  for (const item of items) {
    const [name, parameters] = item
    if (typeof name !== 'string' || name !== name.toLowerCase()) return null
    let value: string | null
    try {
      value = name.startsWith('@') ? derived(request, name, parameters, peers) : fieldValue(request, name, parameters)
    } catch {
      // Not a structured field.
      return null
    }
    if (value === null) return null
    if (!parameters.has('key') && !parameters.has('name')) covered.add(name)
    lines.push(`${serializeItem(item)}: ${value}`)
  }
  lines.push(`"@signature-params": ${serializeInnerList(input)}`)
  return { covered, text: lines.join('\n') }
}

const byTarget = ['@target-uri', '@request-target']
const coveredBy: Readonly<Record<string, readonly string[]>> = {
  '@authority': ['@target-uri', 'host'],
  '@scheme': ['@target-uri'],
  '@path': byTarget,
  '@query': byTarget
}

/** Returns whether a signature covers a component, by itself or with another one. */
export function isCovered(request: FastifyRequest, covered: ReadonlySet<string>, name: string): boolean {
  if (covered.has(name) || coveredBy[name]?.some((other) => covered.has(other))) return true
  return name === '@query' && !request.raw.url!.includes('?')
}
