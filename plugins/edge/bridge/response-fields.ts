/** The fields of a response to a client: which of the service's go on, and what Node's writers would refuse of them. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply } from 'fastify'
import { hopByHop, token } from '../../http-syntax.ts'
import { announced, nominated, notInTrailers } from '../protocol/headers.ts'
import { http2Values } from '../protocol/http2-values.ts'

export type OwnHeaders = Readonly<Record<string, string | number | string[] | undefined>>

/** Headers that describe one body, and are wrong for the error response that takes its place. */
const ofTheBody = ['content-encoding', 'content-length', 'content-range', 'content-type', 'etag', 'last-modified']

/** A plugin's mistake. The client does not learn which header it is; the log does. */
const BadHeader = createError('JW_BAD_HEADER', 'The gateway failed to write a header of the response', 500)

/** RFC 9110, 5.5: visible characters, blanks and tabs, and bytes from 0x80 on. */
export const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/

/** Returns whether a name or value, as a plugin may set them on a reply, cannot be written. */
function isUnwritable(name: string, value: unknown): boolean {
  if (!token.test(name)) return true
  if (Array.isArray(value)) return value.some((item) => !fieldValue.test(String(item)))
  return !fieldValue.test(String(value))
}

/** Returns whether a field of a service's trailer section stays behind. */
export function isNoTrailer(name: string): boolean {
  return hopByHop.has(name) || notInTrailers.has(name) || name.startsWith('x-jingwei-')
}

/**
 * Returns whether trailers are announced and can be passed on: HTTP/1.1 has them only with chunks, HTTP/1.0 has none.
 */
export function hasTrailers({ httpVersion, method }: IncomingMessage, status: number, headers: IncomingHttpHeaders) {
  if (headers.trailer === undefined) return false
  const chunked = headers['transfer-encoding'] !== undefined && headers['content-length'] === undefined
  return httpVersion !== '1.0' && chunked && method !== 'HEAD' && status !== 204 && status !== 304
}

/**
 * Returns whether a service speaks in the gateway's name: its member of `Proxy-Status` (RFC 9209), or its rate limit.
 */
function isInOurName(name: string, value: string | string[] | undefined, own: OwnHeaders): boolean {
  if (name === 'proxy-status') return String(value).toLowerCase().includes('jingwei')
  return name.startsWith('ratelimit') && Object.hasOwn(own, 'ratelimit-limit')
}

/** Outside the loop over the fields: a function within it would cost an allocation for each field. */
const isOwned = (name: string, beginnings: readonly string[]) => beginnings.some((each) => name.startsWith(each))

/** Calls `add` with each end-to-end header of a service that the reply does not have already. */
function passOn(
  given: IncomingHttpHeaders,
  own: OwnHeaders,
  ownsHeaders: readonly string[],
  announces: boolean,
  add: (name: string, value: string | string[]) => void
): void {
  const alsoDrop = nominated(given.connection)
  for (const name in given) {
    if (hopByHop.has(name) || alsoDrop?.has(name)) continue
    if (Object.hasOwn(own, name) && name !== 'vary' && name !== 'set-cookie') continue
    if (ownsHeaders.length > 0 && isOwned(name, ownsHeaders)) continue
    const value = given[name]
    if (value === undefined || isInOurName(name, value, own)) continue
    add(name, value)
  }
  if (announces && !alsoDrop?.has('trailer')) {
    const isLeftOut = (name: string) => isNoTrailer(name) || alsoDrop?.has(name) === true
    const lines = announced(given.trailer!, isLeftOut)
    if (lines.length > 0) add('trailer', lines)
  }
}

/**
 * Returns name, value, name, value, … for `writeHead`: the end-to-end headers of the service and those that the edge
 * and plugins set on the reply, which win. Throws JW_BAD_HEADER for one of these that cannot be written.
 */
export function responseHeaders(
  given: IncomingHttpHeaders,
  own: OwnHeaders,
  isHttp2: boolean,
  ownsHeaders: readonly string[],
  announces: boolean
): string[] {
  const merged: string[] = []
  const add = (name: string, value: string | string[]) => {
    if (typeof value === 'string') merged.push(name, value)
    else for (const item of isHttp2 ? http2Values(name, value) : value) merged.push(name, item)
  }
  passOn(given, own, ownsHeaders, announces, add)
  for (const name in own) {
    const value = own[name]!
    if (isUnwritable(name, value)) throw badHeader(name)
    add(name, Array.isArray(value) ? value : String(value))
  }
  return merged
}

/** Returns the error for a header of a plugin that cannot be written. */
export function badHeader(name: string): Error {
  return Object.assign(new BadHeader(), { header: name })
}

/**
 * Sets the end-to-end headers of the service on the reply, where `onSend` hooks see them, and returns their names. Those
 * that the edge and plugins have set win; `vary` and `set-cookie` are joined.
 */
export function setServiceHeaders(
  reply: FastifyReply,
  given: IncomingHttpHeaders,
  isHttp2: boolean,
  ownsHeaders: readonly string[],
  announces: boolean
): Set<string> {
  const own = reply.getHeaders()
  const names = new Set<string>()
  passOn(given, own, ownsHeaders, announces, (name, value) => {
    names.add(name)
    const values = isHttp2 && Array.isArray(value) ? [...http2Values(name, value)] : value
    const before = Object.hasOwn(own, name) ? own[name] : undefined
    // Fastify keeps headers in a plain object, whose prototype this name would set.
    if (name === '__proto__') reply.raw.setHeader(name, [values].flat().join(', '))
    else if (before === undefined) reply.header(name, values)
    else if (name === 'vary') reply.header(name, [values, before].flat().join(', '))
    else {
      // Only once removed: Fastify appends to cookies. The gateway's own are the last, which count.
      reply.removeHeader(name)
      reply.header(name, [values, before].flat())
    }
  })
  return names
}

/** Removes what `setServiceHeaders` has set, and what hooks have said of the body. `own`: the reply's headers before. */
export function removeServiceHeaders(reply: FastifyReply, given: ReadonlySet<string>, own: OwnHeaders): void {
  for (const name of given) reply.removeHeader(name)
  for (const name of ofTheBody) if (own[name] === undefined) reply.removeHeader(name)
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
 * Makes a reply writable again after an attempt to write it has failed, so that the error can be. Removes the headers
 * that cannot be written, and what Node keeps of the attempt: the reason phrase of an HTTP/1.1 response and, of an HTTP/2
 * response whose headers Node refused, all of them. Without a refusal, those of `reply.raw` are a plugin's, and stay.
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
    // Node may also remember that the first attempt has no body. The error's would be read as the next response.
    if (!isHttp2) reply.header('connection', 'close')
  }
}
