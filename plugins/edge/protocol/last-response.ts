import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { constants } from 'node:http2'

const afterLast = Symbol('jingwei.afterLastResponse')

/** Returns whether a request came after the last response of its connection, so that it must not be processed (RFC 9112, 9.6). */
export function isAfterLastResponse(raw: IncomingMessage): boolean {
  return (raw.socket as { [afterLast]?: true })[afterLast] === true
}

/** Marks the response to a request as the last one of its connection. HTTP/2 requests do not depend on each other. */
export function markLastResponse(raw: IncomingMessage): void {
  if (!('stream' in raw)) Object.assign(raw.socket, { [afterLast]: true })
}

/**
 * Resets a stream after its response if the client is still sending the body, which is not an error (RFC 9113, 8.1). Unread
 * bytes would hold back the other streams of the connection.
 */
export function endStreamAfterResponse(raw: Http2ServerRequest): void {
  const { stream } = raw
  if (stream.endAfterHeaders) return
  const end = () => {
    if (!raw.complete) stream.close(constants.NGHTTP2_NO_ERROR)
  }
  if (stream.writableFinished) end()
  else stream.once('finish', end)
}
