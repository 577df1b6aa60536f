/** Clients that take their answer slowly are waited for; those that take nothing of it are not, for long. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerResponse } from 'node:http2'
import { constants } from 'node:http2'

/**
 * Calls `taken` once the client's connection has taken what was written. Cuts a client that takes nothing for `idleMs`:
 * it would hold the service's connection as long as it likes.
 */
export function whenTaken(request: IncomingMessage, response: ServerResponse, idleMs: number, taken: () => void): void {
  const end = bound(request, response, idleMs)
  const done = () => {
    end()
    taken()
  }
  const { socket } = response
  if (socket === null || isHttp2(response)) response.once('drain', done)
  // Behind the chunk: called once that is gone, or cannot go any more.
  else socket.write('', 'latin1', done)
}

/** The same for what the connection has not taken yet of an answer that has ended. */
export function boundRest(request: IncomingMessage, response: ServerResponse, idleMs: number): void {
  const left = isHttp2(response) ? response.stream.writableLength : (response.socket?.writableLength ?? 0)
  if (left === 0) return
  const end = bound(request, response, idleMs)
  // Before Node sets the time for the next request.
  response.prependOnceListener('finish', end)
}

/** Node's own timers go by what the connection takes. Returns how to end it. */
function bound(request: IncomingMessage, response: ServerResponse, idleMs: number): () => void {
  if (isHttp2(response)) {
    const { stream } = response
    stream.setTimeout(idleMs, () => stream.close(constants.NGHTTP2_CANCEL))
    return () => stream.setTimeout(0)
  }
  const { socket } = response
  // While its body comes, the timer is that of the body.
  if (socket === null || !request.complete) return () => {}
  socket.setTimeout(idleMs) // Node destroys a connection whose time is up
  return () => socket.setTimeout(0)
}

function isHttp2(response: object): response is Http2ServerResponse {
  return 'stream' in response
}
