/** Header sections of responses that Fastify sends: refused where Node would throw, and framed as RFC 9112 and 9110 ask. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hopByHop } from '../../http-syntax.ts'
import { reasonPhrase } from './exchange.ts'
import type { OwnHeaders } from './response-fields.ts'
import { badHeader, unwritableHeader } from './response-fields.ts'
import { replyFault } from './stream-faults.ts'

const digits = /^\d+$/

/** Hop-by-hop fields that are settled on their own. */
const settled: ReadonlySet<string> = new Set(['connection', 'trailer', 'transfer-encoding'])
const connectionFields = [...hopByHop].filter((name) => !settled.has(name))

/** RFC 9110, 15: a final status. 1xx would leave the client waiting for another response. */
function isFinal(status: number): boolean {
  return Number.isInteger(status) && status >= 200 && status <= 999
}

/**
 * Returns the error that takes the place of a response whose header section cannot be written; null if it can. Node writes
 * the header section of a stream with the first chunk, where nothing catches what it throws.
 */
export function refusal(request: FastifyRequest, reply: FastifyReply, isStream: boolean): Error | null {
  const { statusCode } = reply.raw
  if (!isFinal(statusCode)) return replyFault(request, new Error(`${statusCode} is no status of a final response`))
  // HTTP/2 has none, and Node writes a warning to stderr where it is asked for it.
  const statusMessage = request.raw.httpVersionMajor === 1 ? reply.raw.statusMessage : undefined
  if (statusMessage !== undefined && !reasonPhrase.test(String(statusMessage))) {
    return replyFault(request, new Error('its reason phrase has characters that it cannot have'))
  }
  const length = reply.getHeader('content-length')
  if (isStream && length !== undefined && !digits.test(String(length))) return badHeader('content-length')
  return unwritableHeader(reply)
}

/** Makes an error response writable whose header section a hook has made unwritable a second time. */
export function repairHead(reply: FastifyReply): void {
  const { raw } = reply
  if (!isFinal(raw.statusCode)) raw.statusCode = 500
  for (let error = unwritableHeader(reply); error !== null; error = unwritableHeader(reply)) {
    reply.removeHeader((error as Error & { header: string }).header)
  }
  if (!('stream' in raw)) raw.statusMessage = ''
}

/** RFC 9110, 6.4.1 and 15.3.6. A write to an HTTP/2 stream that has none would be an error. */
export function hasNoContent({ method, raw }: FastifyRequest, { statusCode }: FastifyReply): boolean {
  const hasNone = statusCode === 204 || statusCode === 304 || (statusCode === 205 && raw.httpVersionMajor > 1)
  return hasNone || method === 'HEAD'
}

/** Removes the fields that frame the connection instead of describing the response, and settles how the body is framed. */
export function settleFields(request: FastifyRequest, reply: FastifyReply, isStream: boolean): void {
  const fields = reply.getHeaders()
  const isHttp2 = request.raw.httpVersionMajor > 1
  // RFC 9110, 15.5.22: 426 asks for another protocol, and names it.
  if (isHttp2 || reply.statusCode !== 426) settleConnection(reply, fields, isHttp2)
  const canTrail = request.raw.httpVersion !== '1.0' && !hasNoContent(request, reply)
  if (!canTrail) reply.removeTrailerFunctions()
  const length = fields['content-length']
  let hasLength = length !== undefined
  // RFC 9110, 8.6, but for a length of 0, with which @fastify/cors keeps older browsers from waiting; RFC 9112, 6.2.
  const isSurplus = reply.statusCode === 204 && String(length) !== '0'
  if (hasLength && (isSurplus || reply.hasTrailerFunctions())) {
    reply.removeHeader('content-length')
    hasLength = false
  }
  const isChunked = canTrail && isStream && !hasLength
  // Fastify announces those of trailer functions later. Node refuses to announce trailers without chunks.
  if (!isChunked && fields.trailer !== undefined) reply.removeHeader('trailer')
  if (fields['transfer-encoding'] === undefined) return
  // Once removed, Node would not send chunks at all.
  if (isChunked && !isHttp2) reply.header('transfer-encoding', 'chunked')
  else reply.removeHeader('transfer-encoding')
}

/** Removes the fields of one connection, but for `Connection: close` of HTTP/1.1. HTTP/2 has no such fields (RFC 9113, 8.2.2). */
function settleConnection(reply: FastifyReply, fields: OwnHeaders, isHttp2: boolean): void {
  for (const name of connectionFields) if (fields[name] !== undefined) reply.removeHeader(name)
  const given = fields.connection
  if (given === undefined) return
  const options = String(given).toLowerCase().split(',')
  if (!isHttp2 && options.some((option) => option.trim() === 'close')) reply.header('connection', 'close')
  else reply.removeHeader('connection')
}
