import type { IncomingMessage } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import type { FastifyRequest } from 'fastify'

declare module 'fastify' {
  interface FastifyRequest {
    olderInFlight: FastifyRequest | null
    newerInFlight: FastifyRequest | null
    /** Counter besides the list that counts the request, such as that of a limit; null if there is none. */
    inFlightCount: InFlightCount | null
  }
}

/** Resets a request: over HTTP/1.1 its connection, over HTTP/2 its stream. */
export function reset(raw: IncomingMessage): void {
  if ('stream' in raw) (raw.stream as ServerHttp2Stream).close(constants.NGHTTP2_CANCEL)
  else raw.socket.destroy()
}

/** Number of requests in flight that a limit counts, of all generations. */
export interface InFlightCount {
  count: number
}

/** Counts a request until it ends. Not for WebSockets, which `InFlight` does not have. */
export function countInFlight(request: FastifyRequest, counter: InFlightCount): void {
  counter.count++
  request.inFlightCount = counter
}

/** Ends the counting of a request. */
export function uncount(request: FastifyRequest): void {
  if (request.inFlightCount === null) return
  request.inFlightCount.count--
  request.inFlightCount = null
}

/**
 * Requests in flight of one generation, without WebSockets. A linked list, because a Set with frequent insertions and
 * deletions keeps deleted members in memory until the next full garbage collection.
 */
export class InFlight {
  #newest: FastifyRequest | null = null
  /** Called whenever the last request has ended. */
  onNone: () => void = () => {}

  get isEmpty(): boolean {
    return this.#newest === null
  }

  enter(request: FastifyRequest): void {
    request.olderInFlight = this.#newest
    if (this.#newest !== null) this.#newest.newerInFlight = request
    this.#newest = request
  }

  leave(request: FastifyRequest): void {
    const { olderInFlight: older, newerInFlight: newer } = request
    if (newer !== null) newer.olderInFlight = older
    else this.#newest = older
    if (older !== null) older.newerInFlight = newer
    request.olderInFlight = null
    request.newerInFlight = null
    uncount(request)
    if (this.#newest === null) this.onNone()
  }

  /** Resets all requests: over HTTP/1.1 their connections, over HTTP/2 their streams. */
  cut(): void {
    for (let request = this.#newest; request !== null; ) {
      const { raw, olderInFlight } = request
      reset(raw)
      request = olderInFlight
    }
  }
}
