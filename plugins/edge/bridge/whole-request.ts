/**
 * Request bodies that concerns read as a whole, for the service. They stay in memory, so that each attempt of a retry can send
 * them.
 */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, preValidationHookHandler } from 'fastify'
import { BodiesBusy, readBody } from '../protocol/read-body.ts'
import { bodyFrom, isCutOff } from '../protocol/request-body.ts'
import { digests } from './response-fields.ts'

/** By request: the whole body, which is also the content of its stream. */
const wholeBodies = new WeakMap<IncomingMessage, Buffer>()

/** A body that was read, as a stream. The next concern takes its bytes. */
class WholeBody extends Readable {
  readonly bytes: Buffer

  constructor(bytes: Buffer) {
    super()
    this.bytes = bytes
  }

  override _read(): void {
    if (this.bytes.length > 0) this.push(this.bytes)
    this.push(null)
  }
}

type Done = (error?: Error | null, payload?: Readable) => void

/** Rules for reading a body. */
export interface Reading {
  readonly maxSize: number
  readonly isShadow: boolean
}

/** Results of reading a body. */
export interface Read {
  /** Called with the whole body. `take` takes memory for another body in its place, and returns false if there is none. */
  whole(bytes: Buffer, take: (bytes: number) => boolean): void
  /**
   * Called if the body is larger than `maxSize`, or if the memory for bodies is in use. `rest` returns all of the body, to be
   * passed on. Without that, one whose Content-Length is too large is left unread, and the rest of another is read and dropped.
   */
  refused(why: 'size' | 'busy', rest: () => Readable): void
}

/**
 * Reads the payload of a `preParsing` hook as a whole. If the client disconnects within the body, nothing is called: the
 * request has ended. Errors of the payload, such as a malformed content coding, end the request; in shadow mode its next
 * reader gets them.
 */
export function readWhole(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: Readable,
  { maxSize, isShadow }: Reading,
  done: Done,
  read: Read
): void {
  const { raw } = request
  const take = (bytes: number) => request.server.bodyMemory.holdFor(request, reply).take(bytes)
  if (payload instanceof WholeBody && !payload.readableDidRead) {
    if (payload.bytes.length > maxSize) read.refused('size', () => payload)
    else read.whole(payload.bytes, take)
    return
  }
  if (Number(raw.headers['content-length'] ?? 0) > maxSize) {
    read.refused('size', () => payload)
    return
  }
  // No event follows if the client has left during an earlier hook.
  if (isCutOff(raw)) return
  readBody(
    payload,
    maxSize,
    (error, bytes, chunks) => {
      // The client has disconnected, or another response has been sent. Over HTTP/2, a body that is cut off ends, too.
      if (reply.sent || isCutOff(raw)) return
      if (bytes !== null) {
        read.whole(bytes, take)
        return
      }
      let isPassedOn = false
      const rest = () => {
        isPassedOn = true
        return bodyFrom(chunks, payload)
      }
      if (error === null || error instanceof BodiesBusy) read.refused(error === null ? 'size' : 'busy', rest)
      else if (isShadow) done(null, rest())
      else done(error)
      // The rest is read and dropped, because the next request on the connection follows it.
      if (!isPassedOn) payload.resume()
    },
    take
  )
}

/** Returns the payload of a `preParsing` hook for a body that was read. */
export function wholeBody(raw: IncomingMessage, body: Buffer): Readable {
  wholeBodies.set(raw, body)
  return new WholeBody(body)
}

/** `preValidation` hook of a route of the bridge, which then sends the bytes in place of the stream. */
export const takeWhole: preValidationHookHandler = (request, _reply, done) => {
  const body = wholeBodies.get(request.raw)
  if (body !== undefined) request.body = body
  done()
}

/** Returns the payload for a body that was read and not changed. One with trailers stays a stream, since they follow it. */
export function unchangedBody(raw: IncomingMessage, body: Buffer): Readable {
  if (raw.rawTrailers.length > 0) return new WholeBody(body)
  setLength(raw, body.length, false)
  return wholeBody(raw, body)
}

/** Returns the payload for a body that replaces that of the client. */
export function replacedBody(request: FastifyRequest, body: Buffer): Readable {
  const { raw } = request
  // In the trailer section, too.
  request.removedHeaders = new Set([...(request.removedHeaders ?? []), ...ofBytes])
  // Trailers follow a chunked body.
  const hasTrailers = raw.rawTrailers.length > 0 && raw.headers['content-length'] === undefined
  if (hasTrailers) return new WholeBody(body)
  setLength(raw, body.length, true)
  return wholeBody(raw, body)
}

/** Fields that describe the bytes of a body: wrong for another one. */
const ofBytes: ReadonlySet<string> = new Set(digests)

/** Sets the Content-Length of a request, in place of a chunked body. */
export function setLength(raw: IncomingMessage, length: number, isReplaced: boolean): void {
  const { rawHeaders, headers } = raw
  const value = String(length)
  let isSet = false
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const name = rawHeaders[i]!.toLowerCase()
    if (name === 'content-length') {
      rawHeaders[i + 1] = value
      isSet = true
    } else if (isReplaced && ofBytes.has(name)) {
      rawHeaders.splice(i, 2)
      delete headers[name]
    }
  }
  if (!isSet) rawHeaders.push('content-length', value)
  headers['content-length'] = value
}
