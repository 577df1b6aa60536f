import type { IncomingHttpHeaders } from 'node:http'
import { listItems } from '../../../http-syntax.ts'

/** More directives than an honest message has. */
const mostDirectives = 64
/** More names than an honest response has. */
const mostNames = 32

/** The directives of a Cache-Control header, names in lower case; RFC 9111, 5.2. */
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

/** Stands for a header that cannot be read: its message may not be shared. */
const unusable = ['no-store']

/**
 * The request headers that the response depends on, each once, in lower case. Null where the response fits no other
 * request: `*`, or more names than an honest service sends, since each costs a search per request. RFC 9110, 12.5.5.
 */
export function varyOf({ vary }: IncomingHttpHeaders): readonly string[] | null {
  if (vary === undefined) return []
  const names = listItems(String(vary).toLowerCase(), mostNames)
  return names === null || names.includes('*') ? null : [...new Set(names)]
}
