/**
 * Limits the time for which a stream of an `onSend` hook may delay a response. `sendIdle` limits a slow client, and
 * `idleTimeout` a service that pauses. Without this limit, a stream that neither reads nor ends would hold a connection to
 * the service until the client disconnects.
 */
import type { ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { Sweep } from '../protocol/sweep.ts'

/** A response whose body passes a stream of a hook. */
export interface StreamedResponse {
  /** A number that changes whenever the stream has read or sent bytes. */
  readonly progress: number
  /** True if the response waits for the stream; false while the stream waits for bytes of the service. */
  readonly awaitsStream: boolean
  /** Ends the response because its stream made no progress within the time. */
  stall(idleMs: number): void
  /** Closes the connection (HTTP/2: the stream). */
  resetClient(): void
}

interface Watched {
  readonly response: StreamedResponse
  readonly raw: ServerResponse
  progress: number
  leftMs: number
  hasStalled: boolean
}

/** The hooks' streams of one route that are being sent. */
export class StalledStreams {
  readonly #idleMs: number
  readonly #sweep: Sweep<Watched>

  constructor(idleMs: number) {
    this.#idleMs = idleMs
    this.#sweep = new Sweep(idleMs, (watched, elapsedMs) => this.#check(watched, elapsedMs))
  }

  /** Watches a stream until its response is closed. */
  watch(response: StreamedResponse, raw: ServerResponse): void {
    if (raw.closed) return
    const watched = { response, raw, progress: response.progress, leftMs: this.#idleMs, hasStalled: false }
    this.#sweep.add(watched)
    raw.once('close', () => this.#sweep.delete(watched))
  }

  #check(watched: Watched, elapsedMs: number): void {
    const { response, raw } = watched
    const { progress } = response
    const waits = !raw.writableEnded && progress === watched.progress && response.awaitsStream && !isBlocked(raw)
    watched.progress = progress
    watched.leftMs = waits ? watched.leftMs - elapsedMs : this.#idleMs
    if (watched.leftMs > 0) return
    watched.leftMs = this.#idleMs
    // The error response waits for the stream, too, if that cannot be destroyed.
    if (watched.hasStalled) response.resetClient()
    else response.stall(this.#idleMs)
    watched.hasStalled = true
  }
}

/** Returns whether the response's buffer is full, so that the stream waits for the client. */
function isBlocked(raw: ServerResponse): boolean {
  return 'stream' in raw ? (raw.stream as ServerHttp2Stream).writableNeedDrain : raw.writableNeedDrain
}
