/** Header fields of responses to clients: selects those of the service, and finds those that Node cannot write. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hopByHop, token } from '../../http-syntax.ts'
import { announced, endToEnd, nominated, notInTrailers } from '../protocol/headers.ts'
import { http2Values } from '../protocol/http2-values.ts'

export type OwnHeaders = Readonly<Record<string, string | number | string[] | undefined>>

/** Headers that describe a body, and are wrong for an error response that replaces it. */
const bodyHeaders = ['content-encoding', 'content-length', 'content-range', 'content-type', 'etag', 'last-modified']

/** Error for an unwritable header of a plugin. Only the log names the header. */
const BadHeader = createError('JW_BAD_HEADER', 'The gateway failed to write a header of the response', 500)

/** Field value (RFC 9110, 5.5): visible ASCII, space, tab, and bytes from 0x80 on. */
export const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/

/** Names that are tokens. Plugins and concerns use few names, again and again. */
const tokens = new Set<string>()
const mostTokens = 1000

function isToken(name: string): boolean {
  if (tokens.has(name)) return true
  if (!token.test(name)) return false
  if (tokens.size < mostTokens && name.length < 100) tokens.add(name)
  return true
}

/** Returns whether a name or value that a plugin has set cannot be written. */
function isUnwritable(name: string, value: unknown): boolean {
  if (!isToken(name)) return true
  if (typeof value === 'number') return false
  if (Array.isArray(value)) return value.some((item) => !fieldValue.test(String(item)))
  return !fieldValue.test(String(value))
}

/** Returns whether a field of a service's trailer section must not be passed on. */
export function isForbiddenTrailer(name: string): boolean {
  return hopByHop.has(name) || notInTrailers.has(name) || name.startsWith('x-jingwei-')
}

/** Fields that are true only for the bytes of the sender. */
export const digests: readonly string[] = ['content-digest', 'repr-digest', 'digest', 'content-md5']

declare module 'fastify' {
  interface FastifyRequest {
    /** True if the gateway may send other bytes to the client than the service. Set it before the service is called. */
    mayGetOtherBytes: boolean
  }
}

/** Returns whether a trailer is the digest of a body that the gateway may have changed. */
export const hasOtherBytes = (request: FastifyRequest, name: string): boolean =>
  request.mayGetOtherBytes && digests.includes(name)

/**
 * Returns whether trailers are announced and can be passed on. HTTP/1.1 has them only with chunked encoding, HTTP/1.0 never.
 */
export function hasTrailers({ httpVersion, method }: IncomingMessage, status: number, headers: IncomingHttpHeaders) {
  if (headers.trailer === undefined) return false
  const chunked = headers['transfer-encoding'] !== undefined && headers['content-length'] === undefined
  return httpVersion !== '1.0' && chunked && method !== 'HEAD' && status !== 204 && status !== 304
}

/**
 * Returns whether a service's field imitates the gateway: a `Proxy-Status` (RFC 9209) with its name, or its rate limit.
 */
function imitatesGateway(name: string, value: string | string[] | undefined, own: OwnHeaders): boolean {
  if (name === 'proxy-status') return String(value).toLowerCase().includes('jingwei')
  if (name.startsWith('ratelimit')) return Object.hasOwn(own, 'ratelimit-limit') || Object.hasOwn(own, 'ratelimit')
  return name.startsWith('x-ratelimit') && Object.hasOwn(own, 'x-ratelimit-limit')
}

/** Returns whether concerns set the headers with such a name. A loop, which takes a third of the time of `some`. */
function isOwned(name: string, beginnings: readonly string[]): boolean {
  for (const each of beginnings) if (name.startsWith(each)) return true
  return false
}

/**
 * Calls `add` with each end-to-end header of a service that the reply does not have yet. `isTransparent`: the service may be
 * another gateway, whose `Proxy-Status` is passed on.
 */
function passOn(
  given: IncomingHttpHeaders,
  own: OwnHeaders,
  ownsHeaders: readonly string[],
  isTransparent: boolean,
  announces: boolean,
  add: (name: string, value: string | string[]) => void
): void {
  const alsoDrop = nominated(given.connection)
  for (const name in given) {
    if (hopByHop.has(name) || alsoDrop?.has(name)) continue
    if (Object.hasOwn(own, name) && name !== 'vary' && name !== 'set-cookie') continue
    if (ownsHeaders.length > 0 && isOwned(name, ownsHeaders)) continue
    const value = given[name]
    if (value === undefined || (!isTransparent && imitatesGateway(name, value, own))) continue
    add(name, value)
  }
  if (announces && !alsoDrop?.has('trailer')) {
    const isLeftOut = (name: string) =>
      isForbiddenTrailer(name) || isOwned(name, ownsHeaders) || alsoDrop?.has(name) === true
    const lines = announced(given.trailer!, isLeftOut)
    if (lines.length > 0) add('trailer', lines)
  }
}

/**
 * Returns name, value, name, value, … for `writeHead`: the end-to-end headers of the service, and those that the edge and
 * plugins have set on the reply, which win. Throws JW_BAD_HEADER if one of the latter cannot be written.
 */
export function responseHeaders(
  given: IncomingHttpHeaders,
  own: OwnHeaders,
  isHttp2: boolean,
  ownsHeaders: readonly string[],
  isTransparent: boolean,
  announces: boolean
): string[] {
  const merged: string[] = []
  const add = (name: string, value: string | string[]) => {
    if (typeof value === 'string') merged.push(name, value)
    else for (const item of isHttp2 ? http2Values(name, value) : value) merged.push(name, item)
  }
  passOn(given, own, ownsHeaders, isTransparent, announces, add)
  for (const name in own) {
    const value = own[name]!
    if (isUnwritable(name, value)) throw badHeader(name)
    add(name, Array.isArray(value) ? value : String(value))
  }
  return merged
}

/** Returns the fields for the client of an informational response, or of a trailer section. */
export function fieldsBesides(
  given: IncomingHttpHeaders,
  isHttp2: boolean,
  { ownsHeaders, isTransparent }: { readonly ownsHeaders: readonly string[]; readonly isTransparent: boolean }
): [name: string, value: string | string[]][] {
  return endToEnd(given, isHttp2).filter(
    ([name, value]) => !isOwned(name, ownsHeaders) && (isTransparent || !imitatesGateway(name, value, {}))
  )
}

/** Returns the error for an unwritable header of a plugin. */
export function badHeader(name: string): Error {
  return Object.assign(new BadHeader(), { header: name })
}

/**
 * Sets the end-to-end headers of the service on the reply, where `onSend` hooks see them, and returns their names. Headers
 * that the edge and plugins have set (`own`) win; `vary` and `set-cookie` are combined.
 */
export function setServiceHeaders(
  reply: FastifyReply,
  own: OwnHeaders,
  given: IncomingHttpHeaders,
  isHttp2: boolean,
  ownsHeaders: readonly string[],
  announces: boolean
): Set<string> {
  const names = new Set<string>()
  passOn(given, own, ownsHeaders, false, announces, (name, value) => {
    names.add(name)
    const values = isHttp2 && Array.isArray(value) ? [...http2Values(name, value)] : value
    const before = Object.hasOwn(own, name) ? own[name] : undefined
    // Fastify stores headers in a plain object, whose prototype this name would change.
    if (name === '__proto__') reply.raw.setHeader(name, [values].flat().join(', '))
    else if (before === undefined) reply.header(name, values)
    else if (name === 'vary') reply.header(name, [values, before].flat().join(', '))
    else {
      // Removed first, because Fastify appends cookies. The gateway's cookies come last, so that they win.
      reply.removeHeader(name)
      reply.header(name, [values, before].flat())
    }
  })
  return names
}

/** Removes the headers that `setServiceHeaders` has set, and those that describe the body. `own`: the reply's headers before. */
export function removeServiceHeaders(reply: FastifyReply, given: ReadonlySet<string>, own: OwnHeaders): void {
  for (const name of given) reply.removeHeader(name)
  for (const name of bodyHeaders) if (own[name] === undefined) reply.removeHeader(name)
  for (const name of ['vary', 'set-cookie']) {
    const before = own[name]
    if (given.has(name) && before !== undefined) reply.header(name, before)
  }
}

/** Returns JW_BAD_HEADER if the reply has a header that cannot be written. */
export function unwritableHeader(reply: FastifyReply): Error | null {
  const headers = reply.getHeaders()
  for (const name in headers) if (isUnwritable(name, headers[name])) return badHeader(name)
  return null
}

/**
 * Makes a reply writable again after a failed write, so that the error response can be written. Removes unwritable headers
 * and the state that Node keeps: for HTTP/1.1 the reason phrase; for HTTP/2, if Node refused the headers (`isRefused`), all
 * headers. Otherwise the headers of `reply.raw` were set by a plugin, and stay.
 */
export function resetReply(reply: FastifyReply, isRefused: boolean): void {
  const { raw } = reply
  if (raw.headersSent) return
  const isHttp2 = 'stream' in raw
  if (!isHttp2) raw.statusMessage = ''
  else if (isRefused) for (const name of raw.getHeaderNames()) raw.removeHeader(name)
  const headers = reply.getHeaders()
  for (const name in headers) {
    if (!isUnwritable(name, headers[name])) continue
    reply.removeHeader(name)
    // Node may have stored that the response has no body. The client would read the error's body as the next response.
    if (!isHttp2) reply.header('connection', 'close')
  }
}
