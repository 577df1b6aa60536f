/** Header sections of responses that Fastify sends: finds those that Node cannot write, and frames the others by RFC 9112 and 9110. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hopByHop } from '../../http-syntax.ts'
import { reasonPhrase } from './exchange.ts'
import type { OwnHeaders } from './response-fields.ts'
import { badHeader, unwritableHeader } from './response-fields.ts'
import { replyFault } from './stream-faults.ts'

const digits = /^\d+$/

/** Hop-by-hop fields that have rules of their own. */
const withOwnRules: ReadonlySet<string> = new Set(['connection', 'trailer', 'transfer-encoding'])
const connectionFields = [...hopByHop].filter((name) => !withOwnRules.has(name))

/** Returns whether a status is final (RFC 9110, 15). After a 1xx, the client would wait for another response. */
function isFinal(status: number): boolean {
  return Number.isInteger(status) && status >= 200 && status <= 999
}

/**
 * Returns the error that replaces a response whose header section cannot be written; null if it can. Node writes the header
 * section of a stream with its first chunk, where no code catches an error.
 */
export function headFault(request: FastifyRequest, reply: FastifyReply, isStream: boolean): Error | null {
  const { statusCode } = reply.raw
  if (!isFinal(statusCode)) return replyFault(request, new Error(`${statusCode} is not a final status`))
  // HTTP/2 has no reason phrase, and reading it makes Node write a warning to stderr.
  const statusMessage = request.raw.httpVersionMajor === 1 ? reply.raw.statusMessage : undefined
  if (statusMessage !== undefined && !reasonPhrase.test(String(statusMessage))) {
    return replyFault(request, new Error('its reason phrase has invalid characters'))
  }
  const length = reply.getHeader('content-length')
  if (isStream && length !== undefined && !digits.test(String(length))) return badHeader('content-length')
  return unwritableHeader(reply)
}

/** Repairs the header section of an error response that a hook has made unwritable, too. */
export function repairHead(reply: FastifyReply): void {
  const { raw } = reply
  if (!isFinal(raw.statusCode)) raw.statusCode = 500
  for (let error = unwritableHeader(reply); error !== null; error = unwritableHeader(reply)) {
    reply.removeHeader((error as Error & { header: string }).header)
  }
  if (!('stream' in raw)) raw.statusMessage = ''
}

/**
 * Returns a text as bytes if a field has bytes beyond ASCII. Node writes the header section together with a text, and both
 * as UTF-8, which doubles such bytes.
 */
export function besideFields(payload: unknown, reply: FastifyReply): unknown {
  if (typeof payload !== 'string' || 'stream' in reply.raw) return payload
  const fields = reply.getHeaders()
  for (const name in fields) if (beyondAscii.test(String(fields[name]))) return Buffer.from(payload)
  return payload
}

const beyondAscii = /[\x80-\xff]/

/** Returns whether a response has no body (RFC 9110, 6.4.1 and 15.3.6). Writing one to an HTTP/2 stream would be an error. */
export function hasNoContent({ method, raw }: FastifyRequest, { statusCode }: FastifyReply): boolean {
  const hasNone = statusCode === 204 || statusCode === 304 || (statusCode === 205 && raw.httpVersionMajor > 1)
  return hasNone || method === 'HEAD'
}

/** Removes hop-by-hop fields, and sets the framing of the body. */
export function normalizeFields(request: FastifyRequest, reply: FastifyReply, isStream: boolean): void {
  const fields = reply.getHeaders()
  const isHttp2 = request.raw.httpVersionMajor > 1
  // A 426 must have `Upgrade` (RFC 9110, 15.5.22).
  if (isHttp2 || reply.statusCode !== 426) normalizeConnection(reply, fields, isHttp2)
  const canTrail = request.raw.httpVersion !== '1.0' && !hasNoContent(request, reply)
  if (!canTrail) reply.removeTrailerFunctions()
  const length = fields['content-length']
  let hasLength = length !== undefined
  // RFC 9110, 8.6 and RFC 9112, 6.2. A length of 0 may stay: @fastify/cors sets it for older browsers, which would wait.
  const isSurplus = reply.statusCode === 204 && String(length) !== '0'
  if (hasLength && (isSurplus || reply.hasTrailerFunctions())) {
    reply.removeHeader('content-length')
    hasLength = false
  }
  const isChunked = canTrail && isStream && !hasLength
  // Fastify sets `Trailer` for trailer functions later. Node throws for `Trailer` without chunked encoding.
  if (!isChunked && fields.trailer !== undefined) reply.removeHeader('trailer')
  if (fields['transfer-encoding'] === undefined) return
  // Set instead of removed: after a removal, Node would not use chunked encoding.
  if (isChunked && !isHttp2) reply.header('transfer-encoding', 'chunked')
  else reply.removeHeader('transfer-encoding')
}

/** Removes hop-by-hop fields, except `Connection: close` of HTTP/1.1. HTTP/2 has none of them (RFC 9113, 8.2.2). */
function normalizeConnection(reply: FastifyReply, fields: OwnHeaders, isHttp2: boolean): void {
  for (const name of connectionFields) if (fields[name] !== undefined) reply.removeHeader(name)
  const given = fields.connection
  if (given === undefined) return
  const options = String(given).toLowerCase().split(',')
  if (!isHttp2 && options.some((option) => option.trim() === 'close')) reply.header('connection', 'close')
  else reply.removeHeader('connection')
}
