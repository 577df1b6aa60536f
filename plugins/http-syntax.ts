/**
 * HTTP syntax that both halves, operations and the configuration share: names, lists, hop-by-hop headers, addresses. The
 * functions read each character once; a regular expression that can start anywhere and ends at a separator would take
 * quadratic time. This file imports nothing.
 */

/** Pattern of a token, for use in longer patterns. */
export const tokenPattern = "[!#$%&'*+.^_`|~0-9A-Za-z-]+"

/** A token (RFC 9110, 5.6.2), such as the name of a header. */
export const token = new RegExp(`^${tokenPattern}$`)

/** Form of request ids that are safe in headers and logs. */
const wellFormedId = /^[\w.:/+=@-]{1,128}$/

/** Returns whether a header's value is a well-formed request id. */
export const isRequestId = (value: unknown): value is string => typeof value === 'string' && wellFormedId.test(value)

/** Hop-by-hop headers, which are never forwarded (RFC 9110, 7.6.1, and older ones in use). */
export const hopByHop: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'http2-settings'
])

/**
 * Converts an IPv4-mapped IPv6 address, as a dual-stack listener reports it, to the IPv4 address; returns other texts
 * unchanged. The address is undefined once the socket is closed.
 */
export function unmapped<T extends string | undefined>(address: T): T
export function unmapped(address: string | undefined): string | undefined {
  return address?.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address
}

/**
 * Returns the items of a comma-separated value without quoted strings, trimmed and without empty items; null for more than
 * `most` items.
 */
export function commaItems(value: string, most: number): string[] | null {
  const items: string[] = []
  let start = 0
  for (let at = 0; at <= value.length; at++) {
    if (at < value.length && value.charCodeAt(at) !== 0x2c) continue
    const item = start === at ? '' : value.slice(start, at).trim()
    start = at + 1
    if (item === '') continue
    if (items.length === most) return null
    items.push(item)
  }
  return items
}

const comma = 0x2c
const quote = 0x22
const backslash = 0x5c

/**
 * Returns the items of a comma-separated header value (RFC 9110, 5.6.1), trimmed and without empty items. Commas within
 * quoted strings do not separate. Null for an unclosed quoted string, and for more than `most` items: 16 KB have room for
 * 8,000, and processing them would cost more than the request.
 */
export function listItems(value: string, most: number): readonly string[] | null {
  const items: string[] = []
  let start = 0
  let isQuoted = false
  for (let at = 0; at < value.length; at++) {
    const code = value.charCodeAt(at)
    if (code === quote) isQuoted = !isQuoted
    else if (isQuoted) at += code === backslash ? 1 : 0
    else if (code === comma) {
      addItem(items, value, start, at)
      start = at + 1
      if (items.length > most) return null
    }
  }
  addItem(items, value, start, value.length)
  return isQuoted || items.length > most ? null : items
}

function addItem(items: string[], value: string, start: number, end: number): void {
  if (start === end) return
  const item = value.slice(start, end).trim()
  if (item !== '') items.push(item)
}

type HeaderValue = string | number | readonly string[] | null | undefined

/** Headers of a request in any shape that undici accepts: none, flat list, object, iterable of pairs. */
type HeaderFields =
  | readonly HeaderValue[]
  | Iterable<readonly [string, HeaderValue]>
  | Readonly<Record<string, HeaderValue>>
  | null
  | undefined

/**
 * Converts headers from any shape that undici accepts (none, flat list, object, iterable of pairs) to a flat list: name,
 * value, …. Each value of an array becomes a header of its own; a header without a value is left out.
 */
export function headerPairs(headers: HeaderFields, lowerCase = false): string[] {
  const pairs: string[] = []
  if (headers === null || headers === undefined) return pairs
  if (Array.isArray(headers)) {
    for (let i = 0; i + 1 < headers.length; i += 2) addPairs(pairs, String(headers[i]), headers[i + 1], lowerCase)
    return pairs
  }
  const entries = Symbol.iterator in headers ? headers : Object.entries(headers)
  for (const [name, value] of entries as Iterable<[string, HeaderValue]>) addPairs(pairs, name, value, lowerCase)
  return pairs
}

/** Converts headers to a flat list, as `headerPairs` does, and adds the fields of `more` whose names they do not have. */
export function withMissing(headers: HeaderFields, more: readonly string[]): string[] {
  const pairs = headerPairs(headers)
  const names = new Set<string>()
  for (let i = 0; i < pairs.length; i += 2) names.add(pairs[i]!.toLowerCase())
  for (let i = 0; i < more.length; i += 2) {
    if (!names.has(more[i]!.toLowerCase())) pairs.push(more[i]!, more[i + 1]!)
  }
  return pairs
}

/** Returns the first value of a header by its name in lower case. */
export function fieldOf(pairs: readonly string[], name: string): string | undefined {
  for (let i = 0; i < pairs.length; i += 2) if (pairs[i]!.toLowerCase() === name) return pairs[i + 1]
  return undefined
}

/** Returns headers with another value of a header that they have, given by its name in lower case; the same if they lack it. */
export function withValue(pairs: readonly string[], name: string, value: string): string[] {
  return pairs.map((text, i) => (i % 2 === 1 && pairs[i - 1]!.toLowerCase() === name ? value : text))
}

function addPairs(pairs: string[], given: string, value: HeaderValue, lowerCase: boolean): void {
  if (value === undefined || value === null) return
  const name = lowerCase ? given.toLowerCase() : given
  if (typeof value !== 'object') pairs.push(name, String(value))
  else for (const item of value) pairs.push(name, String(item))
}
