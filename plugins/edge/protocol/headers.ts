import type { IncomingHttpHeaders } from 'node:http'
import { commaItems, hopByHop } from '../../http-syntax.ts'
import { http2Values } from './http2-values.ts'

/** Fields that must not be in a trailer section, because they frame, route or describe the message (RFC 9110, 6.5.1). */
export const notInTrailers: ReadonlySet<string> = new Set([
  'content-length',
  'host',
  'content-type',
  'content-encoding',
  'content-range',
  'set-cookie',
  'authorization',
  'cookie',
  'www-authenticate',
  // Request controls, which a service must know before the body.
  'range',
  'if-range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'cache-control',
  'max-forwards',
  'expect',
  'pragma',
  // Response controls and the description of the content.
  'age',
  'allow',
  'content-language',
  'content-location',
  'date',
  'expires',
  'location',
  'retry-after',
  'vary',
  'via',
  'warning'
])

/** Names in one `Trailer` field; a longer field is not passed on, but the trailers are. */
const maxTrailerNames = 64

/** Returns the values of `Trailer` without the names that are dropped. */
export function announced(trailer: string | readonly string[], isDropped: (name: string) => boolean): string[] {
  return [trailer].flat().flatMap((line) => {
    const names = commaItems(line, maxTrailerNames) ?? []
    const kept = names.filter((name) => !isDropped(name.toLowerCase()))
    return kept.length > 0 ? [kept.join(', ')] : []
  })
}

/** Returns the names that `Connection` makes hop-by-hop; null for plain `keep-alive` and `close`. */
export function nominated(connection: string | readonly string[] | undefined): ReadonlySet<string> | null {
  if (connection === undefined || connection === 'keep-alive' || connection === 'close') return null
  return new Set(
    String(connection)
      .toLowerCase()
      .split(/[\s,]+/)
  )
}

/** Returns whether `Upgrade` offers WebSocket among its protocols. */
export function isWebSocket(upgrade: string | undefined): boolean {
  return upgrade !== undefined && /(?:^|,)\s*websocket\s*(?:,|$)/i.test(upgrade)
}

/** Returns whether `TE` has `trailers`, its only value that is passed on. */
export function takesTrailers(te: string | readonly string[] | undefined): boolean {
  return te !== undefined && /(?:^|,)\s*trailers\s*(?:,|$)/i.test(String(te))
}

/** Returns headers without Content-Length, which 1xx and 204 must not have (RFC 9110, 8.6). */
export function withoutLength({ 'content-length': _none, ...headers }: IncomingHttpHeaders): IncomingHttpHeaders {
  return headers
}

/** Returns the end-to-end fields of a service's response; for HTTP/2, with as many values as it allows. */
export function endToEnd(headers: IncomingHttpHeaders, isHttp2: boolean): [name: string, value: string | string[]][] {
  const alsoDrop = nominated(headers.connection)
  const passed: [string, string | string[]][] = []
  for (const name in headers) {
    const value = headers[name]
    if (value === undefined || hopByHop.has(name) || alsoDrop?.has(name)) continue
    passed.push([name, isHttp2 && Array.isArray(value) ? [...http2Values(name, value)] : value])
  }
  return passed
}

/** Returns fields by name from name, value, name, value, …; repeated names have a list. */
export function fieldsOf(pairs: readonly string[]): Record<string, string | string[]> {
  const fields = Object.create(null) as Record<string, string | string[]>
  for (let at = 0; at < pairs.length; at += 2) {
    const [name, value] = [pairs[at]!, pairs[at + 1]!]
    const before = fields[name]
    fields[name] = before === undefined ? value : [before, value].flat()
  }
  return fields
}
