/** A request body that a concern has read as a whole, for the service. It stays in memory, so that each attempt of a retry can send it. */
import type { IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import { Readable as Stream } from 'node:stream'
import type { FastifyRequest, preValidationHookHandler } from 'fastify'
import { digests } from '../bridge/response-fields.ts'

/** By request: the whole body, which is also the content of its stream. */
const wholeBodies = new WeakMap<IncomingMessage, Buffer>()

/** Returns the payload of a `preParsing` hook for a body that was read. */
export function wholeBody(raw: IncomingMessage, body: Buffer): Readable {
  wholeBodies.set(raw, body)
  return Stream.from(body.length === 0 ? [] : [body])
}

/** `preValidation` hook of a route of the bridge, which then sends the bytes in place of the stream. */
export const takeWhole: preValidationHookHandler = (request, _reply, done) => {
  const body = wholeBodies.get(request.raw)
  if (body !== undefined) request.body = body
  done()
}

/** Returns the payload for a body that was read and not changed. One with trailers stays a stream, since they follow it. */
export function unchangedBody(raw: IncomingMessage, body: Buffer): Readable {
  if (raw.rawTrailers.length > 0) return Stream.from(body.length === 0 ? [] : [body])
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
  if (hasTrailers) return Stream.from(body.length === 0 ? [] : [body])
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
