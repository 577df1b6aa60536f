import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import { PassThrough } from 'node:stream'

/** Whether a body comes with the request: framing says so, never the method or the content type. */
export function hasBody(raw: IncomingMessage): boolean {
  if (raw.httpVersionMajor > 1) return !(raw as unknown as Http2ServerRequest).stream.endAfterHeaders
  const { 'content-length': length, 'transfer-encoding': coding } = raw.headers
  return coding !== undefined || (length !== undefined && Number(length) > 0)
}

/** Whether the body's length is only known when it ends. */
export function hasUnknownLength(raw: IncomingMessage): boolean {
  return raw.headers['content-length'] === undefined && hasBody(raw)
}

/**
 * The body at one remove. Who reads it may destroy it, as undici does when the exchange with the service breaks;
 * destroying the request itself would close the client's connection before it has got its answer.
 */
export function detached(raw: IncomingMessage): Readable {
  return raw.pipe(new PassThrough())
}
