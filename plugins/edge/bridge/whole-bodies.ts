/** Reads bodies as a whole for users' plugins, within the same bounds of memory as concerns. */
import type { Readable } from 'node:stream'
import { Readable as Stream } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { decoded } from '../protocol/content-coding.ts'
import { readBody } from '../protocol/read-body.ts'
import { bodyFrom, hasBody } from '../protocol/request-body.ts'
import { streamOf } from './service-body.ts'
import { replacedBody, setLength } from './whole-request.ts'
import { askForWhole, relabel, unpacked } from './whole-response.ts'

const RequestTooLarge = createError('JW_BODY_TOO_LARGE', 'The body is larger than %d bytes', 413)
const ResponseTooLarge = createError('JW_UPSTREAM_BODY_TOO_LARGE', 'the response is larger than %d bytes', 502)
const Unreadable = createError('JW_RESPONSE_UNREADABLE', 'The response of the service cannot be read as a whole', 502)

export interface BodyLimit {
  /** Largest body, in bytes. */
  readonly maxSize: number
}

const isBridged = ({ routeOptions }: FastifyRequest): boolean => routeOptions.config.route?.isBridged === true

/** Reads a stream. Rejects with `tooLarge` if it has more bytes; `rest` then gets all of it as a stream. */
function readAll(
  stream: Readable,
  { maxSize }: BodyLimit,
  request: FastifyRequest,
  reply: FastifyReply,
  tooLarge: (rest: Readable) => Error
): Promise<Buffer> {
  const hold = request.server.bodyMemory.holdFor(request, reply)
  return new Promise((resolve, reject) => {
    readBody(
      stream,
      maxSize,
      (error, bytes, chunks) => {
        if (bytes !== null) resolve(bytes)
        else if (error === null) reject(tooLarge(bodyFrom(chunks, stream)))
        else {
          stream.on('error', () => {}).resume()
          reject(error)
        }
      },
      (bytes) => hold.take(bytes)
    )
  })
}

/**
 * Reads the body of a request, as the service or the route's handler gets it, and leaves it in place for them. For
 * `preValidation` and `preHandler` hooks. On routes whose body Fastify has parsed, it is the JSON of `request.body`. Rejects
 * with 413 if the body is larger than `maxSize`; the request may then still be passed on.
 */
export async function readRequestBody(request: FastifyRequest, reply: FastifyReply, limit: BodyLimit): Promise<Buffer> {
  const { raw, body } = request
  if (body === undefined && hasBody(raw) && !raw.readableDidRead) {
    throw new Error('readRequestBody: the body is not there yet; call it in a preValidation or preHandler hook')
  }
  const stream = streamOf(body)
  if (stream === null) {
    const bytes = bytesOf(body)
    if (bytes.length > limit.maxSize) throw new RequestTooLarge(limit.maxSize)
    return bytes
  }
  if (stream === raw && !hasBody(raw)) return Buffer.alloc(0)
  const bytes = await readAll(stream, limit, request, reply, (rest) => {
    request.body = rest
    // Unless it is passed on, the rest is read and dropped, because the next request on the connection follows it.
    reply.raw.once('finish', () => raw.resume())
    return new RequestTooLarge(limit.maxSize)
  })
  // Trailers follow a chunked body.
  const hasTrailers = raw.rawTrailers.length > 0 && raw.headers['content-length'] === undefined
  if (!isBridged(request) || hasTrailers) request.body = Stream.from(bytes.length === 0 ? [] : [bytes])
  else {
    setLength(raw, bytes.length, false)
    request.body = bytes
  }
  return bytes
}

/** Puts another body in the place of that of a request, for the service. For `preValidation` and `preHandler` hooks. */
export function replaceRequestBody(request: FastifyRequest, body: Buffer | string): void {
  const bytes = Buffer.from(body)
  const payload = replacedBody(request, bytes)
  request.body = isBridged(request) && request.raw.rawTrailers.length === 0 ? bytes : payload
}

/** Returns a parsed body as bytes. */
function bytesOf(body: unknown): Buffer {
  if (body === undefined || body === null) return Buffer.alloc(0)
  if (body instanceof Uint8Array) return Buffer.from(body.buffer, body.byteOffset, body.length)
  return Buffer.from(typeof body === 'string' ? body : JSON.stringify(body))
}

/**
 * Asks the service for the whole response without a content coding: removes `Range` and `Accept-Encoding`. For hooks before
 * the handler, whose plugin reads the response.
 */
export function askForWholeResponse(request: FastifyRequest): void {
  askForWhole(request, isBridged(request))
}

/**
 * Reads the payload of an `onSend` hook, without its content coding. Return the bytes from the hook, or others in their place.
 * Resolves with null if the response has no body: for HEAD, 204 and 304. Rejects with 502 if the body is larger than
 * `maxSize`, a part of another one, or has a content coding that cannot be decoded.
 */
export async function readResponseBody(
  reply: FastifyReply,
  payload: unknown,
  limit: BodyLimit
): Promise<Buffer | null> {
  const { request } = reply
  const content = unpacked(payload, reply)
  const { statusCode } = reply
  if (content === null || content === undefined || statusCode === 204 || statusCode === 304) return null
  const stream = streamOf(content)
  if (request.method === 'HEAD' && stream !== null) return null
  if (statusCode === 206) throw new Unreadable()
  if (stream === null) {
    if (typeof content !== 'string' && !(content instanceof Uint8Array)) throw new Unreadable()
    return plainOf(bytesOf(content), reply, limit)
  }
  const bytes = await readAll(stream, limit, request, reply, () => {
    stream.on('error', () => {}).destroy()
    return new ResponseTooLarge(limit.maxSize)
  })
  return plainOf(bytes, reply, limit)
}

/** Removes the content coding of a response. */
function plainOf(bytes: Buffer, reply: FastifyReply, { maxSize }: BodyLimit): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    decoded(bytes, reply.getHeader('content-encoding'), maxSize, (_fault, plain) => {
      if (plain === null) reject(new Unreadable())
      else if (plain.length > maxSize) reject(new ResponseTooLarge(maxSize))
      else {
        if (plain !== bytes) relabel(reply)
        resolve(plain)
      }
    })
  })
}
