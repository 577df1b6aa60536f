/**
 * Clients that take their answer slowly are waited for; those that take nothing of it are not, for long. (Over HTTP/2,
 * those that take less than 64 KB in that time.)
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Http2ServerResponse, ServerHttp2Stream } from 'node:http2'
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

/** Returns how to end it. */
function bound(request: IncomingMessage, response: ServerResponse, idleMs: number): () => void {
  if (isHttp2(response)) return boundStream(response.stream, idleMs)
  const { socket } = response
  // While its body comes, the timer is that of the body.
  if (socket === null || !request.complete) return () => {}
  // Goes by what the connection takes; Node destroys one whose time is up.
  socket.setTimeout(idleMs)
  return () => socket.setTimeout(0)
}

/**
 * Node's own timer of a stream goes by what all streams of its session take. Nor does a stream tell how much of a write
 * has been taken, so each 64 KB of it have the time.
 */
function boundStream(stream: ServerHttp2Stream, idleMs: number): () => void {
  const portions = Math.max(1, Math.ceil(stream.writableLength / 65_536))
  let timer = setTimeout(() => {
    stream.close(constants.NGHTTP2_CANCEL)
    // Where its connection takes nothing at all, not even that leaves.
    timer = setTimeout(() => stream.destroy(), idleMs)
  }, idleMs * portions)
  const end = () => {
    clearTimeout(timer)
    stream.off('close', end)
  }
  stream.once('close', end)
  return end
}

function isHttp2(response: object): response is Http2ServerResponse {
  return 'stream' in response
}
