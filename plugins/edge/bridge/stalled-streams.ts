/**
 * Bounds the time for which a stream of an `onSend` hook may keep a response waiting. A slow client is bounded by
 * `sendIdle` and a silent service by `idleTimeout`; without this, a stream that neither reads nor ends holds a connection
 * to the service until the client leaves.
 */
import type { ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { Sweep } from '../protocol/sweep.ts'

/** A response that goes through a stream of a hook. */
export interface StreamedResponse {
  /** Changes whenever the stream has read or sent something. */
  readonly progress: number
  /** False while the stream has read all that there is of the service's body, and the service is to send more. */
  readonly awaitsStream: boolean
  /** Ends the response for a stream that has not continued within the time. */
  stall(idleMs: number): void
  /** Closes the connection, or the stream of HTTP/2. */
  abort(): void
}

interface Watched {
  readonly response: StreamedResponse
  readonly raw: ServerResponse
  progress: number
  leftMs: number
  hasStalled: boolean
}

/** The streams of one route that are being sent. */
export class StalledStreams {
  readonly #idleMs: number
  readonly #sweep: Sweep<Watched>

  constructor(idleMs: number) {
    this.#idleMs = idleMs
    this.#sweep = new Sweep(idleMs, (watched, elapsedMs) => this.#look(watched, elapsedMs))
  }

  /** Watches a stream until its response is closed. */
  watch(response: StreamedResponse, raw: ServerResponse): void {
    if (raw.closed) return
    const watched = { response, raw, progress: response.progress, leftMs: this.#idleMs, hasStalled: false }
    this.#sweep.add(watched)
    raw.once('close', () => this.#sweep.delete(watched))
  }

  #look(watched: Watched, elapsedMs: number): void {
    const { response, raw } = watched
    const { progress } = response
    const waits = !raw.writableEnded && progress === watched.progress && response.awaitsStream && !isBlocked(raw)
    watched.progress = progress
    watched.leftMs = waits ? watched.leftMs - elapsedMs : this.#idleMs
    if (watched.leftMs > 0) return
    watched.leftMs = this.#idleMs
    // A stream that cannot be destroyed keeps the error response waiting as well.
    if (watched.hasStalled) response.abort()
    else response.stall(this.#idleMs)
    watched.hasStalled = true
  }
}

/** Returns whether the client has more to read than is kept for it, so that the stream may not send. */
function isBlocked(raw: ServerResponse): boolean {
  return 'stream' in raw ? (raw.stream as ServerHttp2Stream).writableNeedDrain : raw.writableNeedDrain
}
