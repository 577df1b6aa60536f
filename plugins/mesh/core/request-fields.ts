/**
 * Readers of one header, cookie or query parameter of a call, for hashing and canaries. They accept headers in all of
 * undici's shapes, and return `undefined` if the request has none of that name.
 */
import type { HashSource } from '../../../config/schema.ts'
import { headerPairs, unmapped } from '../../http-syntax.ts'
import type { DispatchOptions } from './types.ts'

type Value = string | readonly string[] | number | undefined | null

/** Returns a header by its name in lower case; repeated ones are combined (RFC 9110, 5.3). */
export function headerOf({ headers }: DispatchOptions, name: string, separator = ', '): string | undefined {
  if (headers === null || headers === undefined) return undefined
  if (Array.isArray(headers)) return fromFlat(headers, name, separator)
  const entries = Symbol.iterator in headers ? headers : Object.entries(headers as Record<string, Value>)
  let found: string | undefined
  for (const [given, value] of entries as Iterable<[string, Value]>) {
    if (isNamed(given, name)) found = joined(found, value, separator)
  }
  return found
}

/** Returns all headers as name, value, name, value, with names in lower case; repeated ones keep their order. */
export function lowerCasePairs({ headers }: DispatchOptions): readonly string[] {
  return headerPairs(headers, true)
}

/** Reads from the shape in which the bridge passes headers: name, value, name, value. */
function fromFlat(headers: readonly Value[], name: string, separator: string): string | undefined {
  let found: string | undefined
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (isNamed(String(headers[i]), name)) found = joined(found, headers[i + 1], separator)
  }
  return found
}

function isNamed(given: string, name: string): boolean {
  return given === name || (given.length === name.length && given.toLowerCase() === name)
}

function joined(before: string | undefined, value: Value, separator: string): string | undefined {
  if (value === undefined || value === null) return before
  const text = typeof value === 'string' ? value : Array.isArray(value) ? value.join(separator) : String(value)
  return before === undefined ? text : before + separator + text
}

/** Returns the first cookie of that name, without quotes. HTTP/2 may send cookies in several fields. */
export function cookieOf(opts: DispatchOptions, name: string): string | undefined {
  const text = headerOf(opts, 'cookie', '; ')
  if (text === undefined) return undefined
  // Search for the name instead of splitting: a header section has room for 8,000 empty pairs.
  for (let at = text.indexOf(name); at >= 0; at = text.indexOf(name, at + name.length)) {
    const before = skipBlanks(text, at - 1, -1)
    const equals = skipBlanks(text, at + name.length, 1)
    if ((before >= 0 && text[before] !== ';') || text[equals] !== '=') continue
    const semicolon = text.indexOf(';', equals)
    const value = text.slice(equals + 1, semicolon < 0 ? text.length : semicolon).trim()
    return value.length > 1 && value.startsWith('"') && value.endsWith('"') ? value.slice(1, -1) : value
  }
  return undefined
}

/** Returns the position of the first character from `at`, in that direction, that is not a blank. */
function skipBlanks(text: string, at: number, direction: 1 | -1): number {
  while (text[at] === ' ' || text[at] === '\t') at += direction
  return at
}

/** Returns the first query parameter of that name, decoded; a name without `=` has the value ''. */
export function queryOf({ path, query }: DispatchOptions, name: string): string | undefined {
  const mark = path.indexOf('?')
  // undici accepts a query either in `path` or in `query`.
  if (mark < 0) return query === undefined || query === null ? undefined : joined(undefined, query[name], ',')
  let equals = mark
  let decodings = 0
  for (let at = mark + 1; at < path.length; ) {
    const ampersand = path.indexOf('&', at)
    const end = ampersand < 0 ? path.length : ampersand
    // Search for "=" only when the last one found has been passed, not again after each ampersand.
    if (equals >= 0 && equals < at) equals = path.indexOf('=', at)
    const nameEnd = equals < 0 || equals > end ? end : equals
    const length = nameEnd - at
    if (length === name.length && path.startsWith(name, at)) return decoded(path.slice(nameEnd + 1, end))
    if (length >= name.length && decodings < mostDecodings) {
      const raw = path.slice(at, nameEnd)
      if (isEncoded(raw)) {
        if (decoded(raw) === name) return decoded(path.slice(nameEnd + 1, end))
        decodings++
      }
    }
    at = end + 1
  }
  return undefined
}

/** Most encoded names that are decoded: a malformed one costs as much as a tenth of a request. */
const mostDecodings = 32

function isEncoded(text: string): boolean {
  return text.includes('%') || text.includes('+')
}

function decoded(text: string): string {
  if (!isEncoded(text)) return text
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}

/**
 * Returns a reader for the value that a `hashOn` or `stickOn` names; it returns `undefined` for '' and for no value.
 */
export function fieldReader(source: HashSource): (opts: DispatchOptions) => string | undefined {
  if (source === 'ip') return ({ caller }) => unmapped(caller?.ip) || undefined
  if (source === 'consumer') return ({ caller }) => caller?.consumer?.id || undefined
  const colon = source.indexOf(':')
  const name = source.slice(colon + 1)
  switch (source.slice(0, colon)) {
    case 'header': {
      const lower = name.toLowerCase()
      return (opts) => headerOf(opts, lower) || undefined
    }
    case 'cookie':
      return (opts) => cookieOf(opts, name) || undefined
    default:
      return (opts) => queryOf(opts, name) || undefined
  }
}
