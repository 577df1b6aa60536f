/** The way back over the bridge: what the seam answers goes to the client's socket as it comes. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { BorrowingHandler, CallContext, CallRecord } from '../../seam.ts'
import { inContext } from '../async-context.ts'
import { recordFailure } from '../errors.ts'
import { endToEnd, isWebSocket, withoutLength } from '../protocol/headers.ts'
import { whenTaken } from '../protocol/slow-reader.ts'
import { breakOff, Surplus } from './break-off.ts'
import { writeInformational } from './informational.ts'
import type { Relocate } from './location.ts'
import { hasTrailers, isNoTrailer, responseHeaders } from './response-fields.ts'
import { leaveTogether } from './turn.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The exchange with the service, from the moment it began. */
    exchange: {
      readonly call: CallRecord | null
      readonly bytesSent: number
      /** Ends it without an answer: there is nobody to give it to. */
      cancel: (reason: Error) => void
      /** Ends it; the client is told why. */
      fail: (reason: Error) => void
    } | null
  }
}

const BadUpgrade = createError('JW_BAD_UPGRADE', 'The service switched to another protocol', 502)

/** What the service says in bytes that no status line may have is left out. */
const reasonPhrase = /^[\t\x20-\x7e\x80-\xff]*$/

/** Chunks up to this many bytes are worth copying, to leave with what comes before and behind them. */
const oneWrite = 16 * 1024

/** One request's answer on its way from the seam to the client. */
export class Exchange implements BorrowingHandler {
  /** Chunks are written at once, or it pauses until they are: their memory may be used again. */
  readonly borrows = Exchange.prototype.onResponseData
  call: CallRecord | null = null
  bytesSent = 0
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #raw: ServerResponse
  readonly #isHttp2: boolean
  /** Whether the edge speaks CORS for this route; then the service's word on it does not count. */
  readonly #ownsCors: boolean
  /** Where the route changes path or host. */
  readonly #relocate: Relocate | null
  /** What the service was told to be missing of its path. */
  readonly #prefix: string | null
  #controller: Dispatcher.DispatchController | null = null
  /**
   * Bytes that leave with this turn, in memory of their own: a string, a character a byte, which joins the head in one
   * write. HTTP/2: a Buffer where they came in one chunk; Node's HTTP/2 streams get nothing else (see `#end`).
   */
  #held: string | Buffer | null = null
  #isBodiless = false
  #leaving = false
  #ended = false
  #gone: Error | null = null

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    ownsCors: boolean,
    relocate: Relocate | null,
    prefix: string | null
  ) {
    this.#request = request
    this.#reply = reply
    this.#raw = reply.raw
    this.#isHttp2 = request.raw.httpVersionMajor > 1
    this.#ownsCors = ownsCors
    this.#relocate = relocate
    this.#prefix = prefix
  }

  cancel(reason: Error): void {
    this.#gone = reason
    this.#controller?.abort(reason)
  }

  fail(reason: Error): void {
    this.#controller?.abort(reason)
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: CallContext | null): void {
    this.#controller = controller
    this.call ??= context?.call ?? null
    if (this.#gone !== null) controller.abort(this.#gone)
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text = ''
  ): void {
    if (this.#gone !== null) return
    if (status < 200) {
      writeInformational(this.#request, this.#raw, status, headers)
      return
    }
    const reason = !this.#isHttp2 && reasonPhrase.test(text) ? text : undefined
    // Node ends an HTTP/2 stream with the header section of a 205, which has no content (RFC 9110, 15.3.6).
    this.#isBodiless = this.#isHttp2 && status === 205
    const passed = status === 204 || this.#isBodiless ? withoutLength(headers) : headers
    this.#raw.writeHead(status, reason, this.#responseHeaders(passed, hasTrailers(this.#request.raw, status, headers)))
    // Not before: what cannot be written is still answered with an error.
    this.#reply.hijack()
    this.#leaveLater()
  }

  #leaveLater(): void {
    if (this.#leaving) return
    this.#leaving = true
    leaveTogether(this)
  }

  /** A head that no body came with goes alone: a stream of events may be silent for long. */
  leave(): void {
    this.#leaving = false
    if (this.#gone !== null) return
    try {
      if (this.#ended) this.#end()
      else if (this.bytesSent === 0) this.#flushHead()
      else this.#writeHeld()
    } catch (err) {
      // No caller catches this, so it would end the process. The response cannot be completed.
      this.#request.log.error({ err }, 'response cannot be written: connection reset')
      this.#controller!.abort(err as Error)
      this.#breakOff(err as Error)
    }
  }

  /**
   * Ends the response with the held chunk, if there is one. HTTP/2 gets no empty chunk: Node takes a vectored write
   * whose last chunk is empty for done before the client's window has let the others out, and frees their memory, so
   * that the client gets what is written there next.
   */
  #end(): void {
    const raw = this.#raw
    const held = this.#takeHeld()
    if (this.#isHttp2) raw.end(held ?? undefined)
    else raw.end(held ?? '', 'latin1')
  }

  #takeHeld(): string | Buffer | null {
    const held = this.#held
    this.#held = null
    return this.#isHttp2 && typeof held === 'string' ? Buffer.from(held, 'latin1') : held
  }

  #writeHeld(): void {
    const held = this.#takeHeld()
    if (held !== null) this.#write(held)
  }

  #flushHead(): void {
    const raw = this.#raw
    // HTTP/2 has sent it in `writeHead`. HTTP/1.1: `flushHeaders` would write the values as UTF-8.
    if (!this.#isHttp2 && !raw.writableEnded && !raw.destroyed) raw.write('', 'latin1')
  }

  /** The client and the service talk WebSocket from here on; the exchange ends when they have ended. */
  onRequestUpgrade(
    _controller: Dispatcher.DispatchController,
    _status: number,
    headers: IncomingHttpHeaders,
    service: Duplex
  ): void {
    if (this.#gone !== null) {
      service.destroy()
      return
    }
    const raw = this.#raw
    const { upgrade } = this.#request
    if (upgrade === null || !isWebSocket(headers.upgrade)) throw new BadUpgrade()
    const passed = withoutLength(headers)
    raw.writeHead(101, [...this.#responseHeaders(passed), 'connection', 'Upgrade', 'upgrade', 'websocket'])
    raw.socket!.setDefaultEncoding('latin1') // or the values would be written as UTF-8
    raw.flushHeaders()
    this.#reply.hijack()
    raw.detachSocket(raw.socket!)
    upgrade.open(service, (bytesSent, error) => {
      this.bytesSent = bytesSent
      if (error !== null && this.#request.failure === null) recordFailure(this.#request, error)
      // The response is over, in Fastify's eyes too: its onResponse hooks run now.
      raw.emit('finish')
    })
  }

  #responseHeaders(given: IncomingHttpHeaders, announces = false): string[] {
    return responseHeaders(this.#relocated(given), this.#reply.getHeaders(), this.#isHttp2, this.#ownsCors, announces)
  }

  #relocated(given: IncomingHttpHeaders): IncomingHttpHeaders {
    if (this.#relocate === null) return given
    return this.#relocate(given, this.#request, this.call?.instance ?? null, this.#prefix)
  }

  onResponseData(_controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#isBodiless && this.#gone === null) this.#dropBody()
    // An interceptor may hand over an empty chunk.
    if (this.#gone !== null || chunk.length === 0) return
    this.bytesSent += chunk.length
    const held = this.#held
    if (held !== null && held.length + chunk.length <= oneWrite) {
      // Of small chunks only what they hold is limited, not their number: a write each would take seconds for a
      // megabyte.
      this.#held = (typeof held === 'string' ? held : held.toString('latin1')) + chunk.toString('latin1')
      return
    }
    this.#writeHeld()
    // The chunk is borrowed, and HTTP/2 may keep what it is given until the client's window opens.
    const own = this.#isHttp2 ? Buffer.from(chunk) : chunk
    if (chunk.length > oneWrite) {
      this.#write(own)
      return
    }
    this.#held = this.#isHttp2 ? own : chunk.toString('latin1')
    this.#leaveLater()
  }

  /** Ends the response without its body, which may have no end, and the exchange with the service. */
  #dropBody(): void {
    this.#gone = new Surplus()
    recordFailure(this.#request, this.#gone)
    this.#end()
    this.#controller!.abort(this.#gone)
  }

  /**
   * Left to itself, Node holds each chunk back for a turn and asks for a pause until it has gone; corked by hand it
   * goes now, and one that the kernel took whole needs no pause. (A third less CPU for large bodies.)
   */
  #write(chunk: Buffer | string): void {
    const raw = this.#raw
    const { socket } = raw
    if (this.#isHttp2) {
      if (raw.write(chunk)) return
    } else if (socket === null) {
      // It waits for its turn in memory of its own.
      if (raw.write(typeof chunk === 'string' ? chunk : Buffer.from(chunk), 'latin1')) return
    } else {
      socket.cork()
      raw.write(chunk, 'latin1')
      socket.uncork()
      if (socket.writableLength === 0) return
    }
    this.#controller!.pause()
    whenTaken(raw, () => this.#controller!.resume())
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders | undefined): void {
    if (this.#gone !== null) return
    if (trailers !== undefined) {
      const passed = endToEnd(trailers, this.#isHttp2).filter(([name]) => !isNoTrailer(name))
      if (passed.length > 0) this.#raw.addTrailers(Object.fromEntries(passed) as Record<string, string>)
    }
    this.#ended = true
    this.#leaveLater()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    if (this.#gone !== null) return
    if (!this.#raw.headersSent) {
      inContext(this.#request, () => this.#reply.send(error))
      return
    }
    this.#writeHeld()
    this.#breakOff(error)
  }

  /** Too late for a status: a broken connection tells the client that the body is not whole. */
  #breakOff(error: Error): void {
    recordFailure(this.#request, error)
    breakOff(this.#request.raw, this.#raw)
  }
}
