/** A response that is written to the client's socket as it comes from the seam, without Fastify's reply in between. */
import type { IncomingHttpHeaders } from 'node:http'
import type { BorrowingHandler } from '../../seam.ts'
import { recordFailure } from '../errors.ts'
import { recordFirstByte } from '../outcome.ts'
import { withoutLength } from '../protocol/headers.ts'
import { whenTaken } from '../protocol/slow-reader.ts'
import { Surplus } from './break-off.ts'
import { Exchange, reasonPhrase } from './exchange.ts'
import { scheduleFlush } from './flush-batch.ts'
import { hasTrailers } from './response-fields.ts'

/** Chunks up to this many bytes are copied, to be written together with their neighbours. */
const oneWrite = 16 * 1024

/** Writes one response of a service to the client. */
export class RawResponse extends Exchange implements BorrowingHandler {
  /** Chunks are written at once, or the response is paused until they are: their memory may be used again. */
  readonly borrows = RawResponse.prototype.onResponseData
  /**
   * Bytes to be flushed in this event-loop iteration, in memory of their own: a string, a character a byte, which joins
   * the header section in one write. HTTP/2: a Buffer where they came in one chunk; Node's HTTP/2 streams get nothing
   * else (see `#writeEnd`).
   */
  #held: string | Buffer | null = null
  #isBodiless = false
  isScheduled = false
  #ended = false

  protected override begin(status: number, headers: IncomingHttpHeaders, text: string): void {
    const { isHttp2, raw } = this
    const reason = !isHttp2 && reasonPhrase.test(text) ? text : undefined
    // Node ends an HTTP/2 stream with the header section of a 205, which has no content (RFC 9110, 15.3.6).
    this.#isBodiless = isHttp2 && status === 205
    const passed = status === 204 || this.#isBodiless ? withoutLength(headers) : headers
    raw.writeHead(status, reason, this.responseHeaders(passed, hasTrailers(this.request.raw, status, headers)))
    recordFirstByte(this.request, this.reply)
    // Not before: a header section that cannot be written still becomes an error response.
    this.reply.hijack()
    scheduleFlush(this)
  }

  /** Sends a header section without a body on its own: a stream of events may be silent for long. */
  flush(): void {
    if (this.gone !== null) return
    try {
      if (this.#ended) this.#writeEnd()
      else if (this.bytesSent === 0) this.#flushHead()
      else this.#writeHeld()
    } catch (err) {
      // No caller catches this, so it would end the process. The response cannot be completed.
      this.request.log.error({ err }, 'response cannot be written: connection reset')
      this.controller!.abort(err as Error)
      super.breakOff(err as Error)
    }
  }

  /**
   * Ends the response with the held chunk, if there is one. HTTP/2 gets no empty chunk: Node takes a vectored write
   * whose last chunk is empty for done before the client's window has let the others out, and frees their memory, so
   * that the client gets what is written there next.
   */
  #writeEnd(): void {
    const { raw } = this
    const held = this.#takeHeld()
    if (this.isHttp2) raw.end(held ?? undefined)
    else raw.end(held ?? '', 'latin1')
  }

  #takeHeld(): string | Buffer | null {
    const held = this.#held
    this.#held = null
    return this.isHttp2 && typeof held === 'string' ? Buffer.from(held, 'latin1') : held
  }

  #writeHeld(): void {
    const held = this.#takeHeld()
    if (held !== null) this.#write(held)
  }

  #flushHead(): void {
    const { raw } = this
    // HTTP/2 has sent it in `writeHead`. HTTP/1.1: `flushHeaders` would write the values as UTF-8.
    if (!this.isHttp2 && !raw.writableEnded && !raw.destroyed) raw.write('', 'latin1')
  }

  override onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.#isBodiless && this.gone === null) this.#dropBody()
    // An interceptor may hand over an empty chunk.
    if (this.gone !== null || chunk.length === 0) return
    this.bytesSent += chunk.length
    const held = this.#held
    if (held !== null && held.length + chunk.length <= oneWrite) {
      // Of small chunks only their bytes are limited, not their number: a write each would take seconds for a megabyte.
      this.#held = (typeof held === 'string' ? held : held.toString('latin1')) + chunk.toString('latin1')
      return
    }
    this.#writeHeld()
    // The chunk is borrowed, and HTTP/2 may keep what it is given until the client's window opens.
    const own = this.isHttp2 ? Buffer.from(chunk) : chunk
    if (chunk.length > oneWrite) {
      this.#write(own)
      return
    }
    this.#held = this.isHttp2 ? own : chunk.toString('latin1')
    scheduleFlush(this)
  }

  /** Ends the response without its body, which may have no end, and the exchange with the service. */
  #dropBody(): void {
    this.gone = new Surplus()
    recordFailure(this.request, this.gone)
    this.#writeEnd()
    this.controller!.abort(this.gone)
  }

  /**
   * Left to itself, Node holds each chunk back for an event-loop iteration and asks for a pause until it has gone;
   * corked by hand it goes now, and one that the kernel took whole needs no pause. (A third less CPU for large bodies.)
   */
  #write(chunk: Buffer | string): void {
    const { raw } = this
    const { socket } = raw
    if (this.isHttp2) {
      if (raw.write(chunk)) return
    } else if (socket === null) {
      // It waits for the responses before it in memory of its own.
      if (raw.write(typeof chunk === 'string' ? chunk : Buffer.from(chunk), 'latin1')) return
    } else {
      socket.cork()
      raw.write(chunk, 'latin1')
      socket.uncork()
      if (socket.writableLength === 0) return
    }
    this.controller!.pause()
    whenTaken(raw, () => this.controller!.resume())
  }

  protected override end(): void {
    this.#ended = true
    scheduleFlush(this)
  }

  protected override breakOff(error: Error): void {
    this.#writeHeld()
    super.breakOff(error)
  }
}
