/** The raw response path: writes a response to the client's socket as it arrives, without Fastify's reply. */
import type { IncomingHttpHeaders } from 'node:http'
import type { BorrowingHandler } from '../../seam.ts'
import { recordFailure } from '../errors.ts'
import { recordFirstByte } from '../outcome.ts'
import { withoutLength } from '../protocol/headers.ts'
import { whenFlushed } from '../protocol/slow-reader.ts'
import { SurplusBody } from './abort-response.ts'
import { Exchange, reasonPhrase } from './exchange.ts'
import { scheduleFlush } from './flush-batch.ts'
import { hasTrailers } from './response-fields.ts'

/** Size up to which chunks are copied, so that several of them are written at once. */
const copiedBytes = 16 * 1024

/** Writes one response of a service to the client. */
export class RawResponse extends Exchange implements BorrowingHandler {
  /** Chunks are written before this method returns, or before the response resumes: their memory may be reused. */
  readonly borrows = RawResponse.prototype.onResponseData
  /**
   * Copied bytes to flush in this event-loop iteration. A latin1 string, which Node writes together with the header
   * section; over HTTP/2 also a Buffer, because HTTP/2 streams must get Buffers only (see `#writeEnd`).
   */
  #held: string | Buffer | null = null
  #isBodiless = false
  isScheduled = false
  #ended = false

  protected override begin(status: number, headers: IncomingHttpHeaders, text: string): void {
    const { isHttp2, raw } = this
    const reason = !isHttp2 && reasonPhrase.test(text) ? text : undefined
    // Node ends an HTTP/2 stream after the header section of a 205, which has no body (RFC 9110, 15.3.6).
    this.#isBodiless = isHttp2 && status === 205
    const passed = status === 204 || this.#isBodiless ? withoutLength(headers) : headers
    raw.writeHead(status, reason, this.responseHeaders(passed, hasTrailers(this.request.raw, status, headers)))
    recordFirstByte(this.request, this.reply)
    // After writeHead: if the header section cannot be written, the error still becomes a response.
    this.reply.hijack()
    scheduleFlush(this)
  }

  /** Writes the held bytes; sends the header section even without a body, since the first event of a stream may come late. */
  flush(): void {
    if (this.gone !== null) return
    try {
      if (this.#ended) this.#writeEnd()
      else if (this.bytesSent === 0) this.#flushHead()
      else this.#writeHeld()
    } catch (err) {
      // No caller catches this error, so it would end the process. The response cannot be completed.
      this.request.log.error({ err }, 'response cannot be written: connection reset')
      this.controller!.abort(err as Error)
      super.abortResponse(err as Error)
    }
  }

  /**
   * Ends the response with the held chunk, if there is one. HTTP/2 must get no empty chunk: if the last chunk of a
   * vectored write is empty, Node frees the memory of the others before the client's window lets them out, and the client
   * gets other bytes.
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
    // HTTP/2: sent by `writeHead`. HTTP/1.1: `flushHeaders` would write the values as UTF-8.
    if (!this.isHttp2 && !raw.writableEnded && !raw.destroyed) raw.write('', 'latin1')
  }

  override onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.#isBodiless && this.gone === null) this.#dropBody()
    if (this.isDropped(chunk)) return
    this.bytesSent += chunk.length
    const held = this.#held
    if (held !== null && held.length + chunk.length <= copiedBytes) {
      // The number of small chunks is not limited: one write for each would take seconds per megabyte.
      this.#held = (typeof held === 'string' ? held : held.toString('latin1')) + chunk.toString('latin1')
      return
    }
    this.#writeHeld()
    // The chunk's memory is reused, and HTTP/2 may keep the chunk until the client's window opens.
    const own = this.isHttp2 ? Buffer.from(chunk) : chunk
    if (chunk.length > copiedBytes) {
      this.#write(own)
      return
    }
    this.#held = this.isHttp2 ? own : chunk.toString('latin1')
    scheduleFlush(this)
  }

  /** Ends the response without its body, which may be endless, and the exchange with the service. */
  #dropBody(): void {
    this.gone = new SurplusBody()
    recordFailure(this.request, this.gone)
    this.#writeEnd()
    this.controller!.abort(this.gone)
  }

  /**
   * Writes a chunk, and pauses the service until it has left the process. By default, Node delays each chunk by an
   * event-loop iteration and asks for a pause. With cork and uncork, the chunk is written now, and if the kernel takes all
   * of it, no pause is needed. (This saves a third of the CPU for large bodies.)
   */
  #write(chunk: Buffer | string): void {
    const { raw } = this
    const { socket } = raw
    if (this.isHttp2) {
      if (raw.write(chunk)) return
    } else if (socket === null) {
      // Pipelined: earlier responses come first, so the chunk is kept and must be a copy.
      if (raw.write(typeof chunk === 'string' ? chunk : Buffer.from(chunk), 'latin1')) return
    } else {
      socket.cork()
      raw.write(chunk, 'latin1')
      socket.uncork()
      if (socket.writableLength === 0) return
    }
    this.controller!.pause()
    whenFlushed(raw, () => this.controller!.resume())
  }

  protected override complete(): void {
    this.#ended = true
    scheduleFlush(this)
  }

  protected override abortResponse(error: Error): void {
    this.#writeHeld()
    super.abortResponse(error)
  }
}
