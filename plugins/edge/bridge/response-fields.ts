/** The fields of a response to a client: which of the service's go on, and what Node's writers would refuse of them. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply } from 'fastify'
import { hopByHop, token } from '../../http-syntax.ts'
import { announced, nominated, notInTrailers } from '../protocol/headers.ts'
import { http2Values } from '../protocol/http2-values.ts'

type OwnHeaders = Readonly<Record<string, string | number | string[] | undefined>>

/** A plugin's mistake. The client does not learn which header it is; the log does. */
const BadHeader = createError('JW_BAD_HEADER', 'The gateway failed to write a header of the response', 500)

/** RFC 9110, 5.5: visible characters, blanks and tabs, and bytes from 0x80 on. */
const valueCharacters = /^[\t\x20-\x7e\x80-\xff]*$/

/** Returns whether a name or value, as a plugin may set them on a reply, cannot be written. */
function isUnwritable(name: string, value: unknown): boolean {
  if (!token.test(name)) return true
  if (Array.isArray(value)) return value.some((item) => !valueCharacters.test(String(item)))
  return !valueCharacters.test(String(value))
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

/**
 * Returns name, value, name, value, … for `writeHead`: the end-to-end headers of the service and those that the edge
 * and plugins set on the reply, which win. Throws JW_BAD_HEADER for one of these that cannot be written.
 */
export function responseHeaders(
  given: IncomingHttpHeaders,
  own: OwnHeaders,
  isHttp2: boolean,
  ownsCors: boolean,
  announces: boolean
): string[] {
  const alsoDrop = nominated(given.connection)
  const merged: string[] = []
  const add = (name: string, values: readonly string[]) => {
    for (const value of isHttp2 ? http2Values(name, values) : values) merged.push(name, value)
  }
  for (const name in given) {
    if (hopByHop.has(name) || alsoDrop?.has(name)) continue
    if (Object.hasOwn(own, name) && name !== 'vary' && name !== 'set-cookie') continue
    if (ownsCors && name.startsWith('access-control-')) continue
    const value = given[name]
    if (isInOurName(name, value, own)) continue
    if (typeof value === 'string') merged.push(name, value)
    else if (value !== undefined) add(name, value)
  }
  if (announces && !alsoDrop?.has('trailer')) {
    const isLeftOut = (name: string) => isNoTrailer(name) || alsoDrop?.has(name) === true
    for (const line of announced(given.trailer!, isLeftOut)) merged.push('trailer', line)
  }
  for (const name in own) {
    const value = own[name]!
    if (isUnwritable(name, value)) throw Object.assign(new BadHeader(), { header: name })
    if (Array.isArray(value)) add(name, value)
    else merged.push(name, String(value))
  }
  return merged
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
