import type { IncomingHttpHeaders } from 'node:http'
import { listItems } from '../../../http-syntax.ts'

/** Most directives that are parsed; more than any legitimate message has. */
const mostDirectives = 64
/** Most names in `Vary` that are parsed; more than any legitimate response has. */
const mostNames = 32

/** Parses the directives of a Cache-Control header, with names in lower case (RFC 9111, 5.2). */
export function cacheControl(value: string | string[] | undefined): ReadonlyMap<string, string> {
  const directives = new Map<string, string>()
  if (value === undefined) return directives
  for (const item of listItems(String(value), mostDirectives) ?? unusable) {
    const equals = item.indexOf('=')
    if (equals < 0) directives.set(item.toLowerCase(), '')
    else directives.set(item.slice(0, equals).trimEnd().toLowerCase(), item.slice(equals + 1).trimStart())
  }
  return directives
}

/** Directives in place of a header that cannot be parsed: its message must not be shared. */
const unusable = ['no-store']

/**
 * Returns the request headers that the response depends on, each once, in lower case. Null if the response fits no
 * other request: `*`, or more than `mostNames`, each of which would cost a search per request (RFC 9110, 12.5.5).
 */
export function varyOf({ vary }: IncomingHttpHeaders): readonly string[] | null {
  if (vary === undefined) return []
  const names = listItems(String(vary).toLowerCase(), mostNames)
  return names === null || names.includes('*') ? null : [...new Set(names)]
}
