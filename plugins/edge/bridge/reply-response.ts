/**
 * The reply response path: sends a response by Fastify's `reply.send(stream)`, so that `onSend` hooks may read and change
 * it. The body stays a stream. Its chunks are copies, since the handler does not declare `borrows`: hooks may keep them.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { STATUS_CODES } from '../../node-http.ts'
import { inContext } from '../async-context.ts'
import { recordFailure } from '../errors.ts'
import { withoutLength } from '../protocol/headers.ts'
import { abortResponse, SurplusBody } from './abort-response.ts'
import { Exchange, reasonPhrase } from './exchange.ts'
import { scheduleFlush } from './flush-batch.ts'
import { hasNoContent } from './reply-head.ts'
import type { OwnHeaders } from './response-fields.ts'
import { hasTrailers, removeServiceHeaders, setServiceHeaders } from './response-fields.ts'
import type { Source } from './service-body.ts'
import { discard, ServiceBody, streamOf } from './service-body.ts'
import type { StreamedResponse } from './stalled-streams.ts'
import { containStreamErrors, streamFault } from './stream-faults.ts'

/** Size up to which small chunks are joined: one write for each would take seconds per megabyte. */
const oneChunk = 16 * 1024

type Done = (error: Error | null, payload?: unknown) => void

export class ReplyResponse extends Exchange implements Source, StreamedResponse {
  /**
   * Progress of the response: not started; in the `onSend` hooks; being written by Fastify. `withdrawn`: an error response
   * replaces it. `cancelled`: the client disconnected while the hooks ran.
   */
  #stage: 'waiting' | 'hooks' | 'sending' | 'withdrawn' | 'cancelled' = 'waiting'
  #body: ServiceBody | null = null
  /** Stream that Fastify writes to the client: the service's body, or a hook's stream in its place. */
  #sent: Readable | null = null
  /** Failure of the service while the hooks run. */
  #failure: Error | null = null
  #status = 0
  #text = ''
  #length: string | undefined
  /** Headers of the reply before those of the service were set. */
  #own: OwnHeaders = {}
  #given: ReadonlySet<string> = new Set()
  /** Chunks to pass on at the end of this event-loop iteration. */
  #held: Buffer[] = []
  #heldBytes = 0
  #receivedBytes = 0
  isScheduled = false
  #isPaused = false

  protected override begin(status: number, headers: IncomingHttpHeaders, text: string): void {
    const { reply, raw, isHttp2 } = this
    this.#status = status
    this.#text = text
    this.#length = headers['content-length']
    this.#own = reply.getHeaders()
    const passed = this.relocated(status === 204 ? withoutLength(headers) : headers)
    const announces = hasTrailers(this.request.raw, status, headers)
    this.#given = setServiceHeaders(reply, this.#own, passed, isHttp2, this.rules.ownsHeaders, announces)
    // Fastify throws for a status of 600 and above.
    if (status < 600) reply.code(status)
    else raw.statusCode = status
    const body = new ServiceBody(this)
    this.#body = body
    this.#stage = 'hooks'
    inContext(this.request, () => reply.send(body))
  }

  /** Takes the payload after all other `onSend` hooks, and passes it to Fastify. */
  proceed(payload: unknown, done: Done): void {
    if (this.#stage === 'hooks') this.#settle(payload, done)
    // An error response, with no part of the service's response.
    else if (this.#stage !== 'cancelled') done(null, payload)
    // Not passed to Fastify, which would write to the closed connection.
    else discard(streamOf(payload))
  }

  #settle(payload: unknown, done: Done): void {
    const stream = streamOf(payload)
    if (stream !== null && this.#failure !== null) {
      done(this.#failure)
      return
    }
    this.#stage = 'sending'
    this.#settleHead(payload)
    if (stream === null) this.#sendWhole(payload, done)
    else if (hasNoContent(this.request, this.reply)) {
      if (stream !== this.#body) discard(stream)
      this.#sendWhole(null, done)
    } else this.#sendStream(stream, done)
  }

  #settleHead(payload: unknown): void {
    const { raw, reply } = this
    const length = reply.getHeader('content-length')
    // The length is that of another body. Fastify sets the length of a body that is not a stream.
    if (payload !== this.#body && length !== undefined && length === this.#length) reply.removeHeader('content-length')
    const isCustom = !this.isHttp2 && this.#text !== STATUS_CODES[this.#status] && reasonPhrase.test(this.#text)
    if (isCustom && raw.statusCode === this.#status) raw.statusMessage = this.#text
  }

  /** Sends a payload that is not a stream. The rest of the service's body is read and dropped. */
  #sendWhole(payload: unknown, done: Done): void {
    const hasNone = hasNoContent(this.request, this.reply)
    // For HEAD, Fastify takes the length from the payload.
    const given = hasNone && this.request.method !== 'HEAD' ? null : payload
    // As a Buffer: Node would write a string together with the header section, and so encode that as UTF-8.
    const bytes = typeof given === 'string' ? Buffer.from(given) : given
    if (Buffer.isBuffer(bytes) || bytes === null) {
      if (bytes !== null && !hasNone) this.bytesSent = bytes.length
      // The body of a 205 is handled in `onResponseData`.
      if (!this.isOver && this.#status !== 205) this.#drop()
    }
    done(null, bytes)
  }

  /** Ignores the rest of the service's body, which a hook has replaced. The exchange continues to its end. */
  #drop(): void {
    this.gone = new Error('the body was replaced')
    this.#held = []
    this.resume()
  }

  #sendStream(stream: Readable, done: Done): void {
    this.#sent = stream
    if (stream === this.#body) {
      this.bytesSent = this.#receivedBytes
      done(null, stream)
    } else {
      const fail = (error: Error) => this.#onStreamError(error)
      containStreamErrors(this.request, fail)
      // Before Fastify's listener, which closes the connection as if the client had disconnected.
      stream.on('error', (error) => this.raw.headersSent && fail(error))
      inContext(this.request, () => done(null, stream))
      // Fastify reads the stream by now, so this listener does not start it.
      stream.on('data', (chunk: Buffer | string) => {
        this.bytesSent += Buffer.byteLength(chunk)
      })
      this.rules.stalls?.watch(this, this.raw)
    }
    scheduleFlush(this)
  }

  /** Returns whether a payload may differ from its Content-Length; the mesh has checked that of an unchanged body. */
  needsCount(payload: unknown): boolean {
    const length = this.reply.getHeader('content-length')
    return length !== undefined && (payload !== this.#body || !this.#body!.isUntouched || length !== this.#length)
  }

  get progress(): number {
    return this.bytesSent + this.#receivedBytes - this.#heldBytes - this.#body!.readableLength
  }

  get awaitsStream(): boolean {
    return this.isOver || this.#isPaused || this.#heldBytes + this.#body!.readableLength > 0
  }

  stall(idleMs: number): void {
    this.#failByStream(new Error(`the stream neither read, wrote nor ended within ${idleMs} ms (hookTimeout)`))
  }

  resetClient(): void {
    abortResponse(this.request.raw, this.raw)
  }

  /** Fails the response after a stream of a hook has failed, unless the client gets no more bytes anyway. */
  #onStreamError(error: Error): void {
    // A failure after the client has disconnected is no fault of the stream.
    if (this.gone === null) this.#failByStream(error)
  }

  /** Logs a fault of a hook's stream and fails the response, unless it is complete. Returns the fault, which names the plugin. */
  #failByStream(error: Error): Error {
    const fault = streamFault(this.request, error)
    if (!this.raw.writableEnded) this.#failResponse(fault)
    return fault
  }

  /** Fails the response because the bytes that a stream wrote do not fit the header section. */
  refuse(error: Error): void {
    const { destroyed, readableEnded } = this.#sent!
    const fault = this.#failByStream(error)
    // Fastify gets no error from a stream that has ended.
    if ((destroyed || readableEnded) && !this.raw.headersSent) inContext(this.request, () => this.reply.send(fault))
  }

  override onResponseData(_controller: unknown, chunk: Buffer): void {
    if (this.isHttp2 && this.#status === 205) this.#dropSurplus()
    if (this.isDropped(chunk)) return
    this.#receivedBytes += chunk.length
    if (this.#sent === this.#body) this.bytesSent += chunk.length
    if (this.#heldBytes + chunk.length > oneChunk) inContext(this.request, () => this.#pushHeld())
    this.#held.push(chunk)
    this.#heldBytes += chunk.length
    if (this.#heldBytes > oneChunk) inContext(this.request, () => this.#pushHeld())
    else scheduleFlush(this)
  }

  /** Ends the exchange with a service that sends a body with a 205. */
  #dropSurplus(): void {
    if (this.gone !== null) return
    this.gone = new SurplusBody()
    recordFailure(this.request, this.gone)
    this.controller!.abort(this.gone)
  }

  #pushHeld(): void {
    const held = this.#held
    if (held.length === 0) return
    this.#held = []
    this.#heldBytes = 0
    if (this.#body!.pass(held.length === 1 ? held[0]! : Buffer.concat(held)) || this.isOver) return
    this.#isPaused = true
    this.controller!.pause()
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#isPaused = false
    this.controller!.resume()
  }

  flush(): void {
    if (this.gone !== null || this.#stage === 'withdrawn') return
    try {
      inContext(this.request, () => this.#pass())
    } catch (error) {
      // No caller catches this error, so it would end the process.
      this.#onStreamError(error as Error)
    }
  }

  #pass(): void {
    this.#pushHeld()
    if (this.isOver) this.#body!.pass(null)
    // Sends the header section without a body, since the first event of a stream may come late.
    else if (this.#sent !== null && this.#receivedBytes === 0) this.#flushHead()
  }

  #flushHead(): void {
    const { raw } = this
    if (raw.headersSent || raw.writableEnded || raw.destroyed) return
    // HTTP/1.1: `flushHeaders` would write the values as UTF-8.
    if (this.isHttp2) raw.flushHeaders()
    else raw.write('', 'latin1')
  }

  protected override complete(): void {
    scheduleFlush(this)
  }

  override onResponseError(controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    if (this.gone !== null || this.#stage === 'waiting') {
      super.onResponseError(controller, error)
      return
    }
    this.isOver = true
    inContext(this.request, () => {
      // The bytes that came before the failure are sent first.
      if (this.raw.headersSent) this.#pushHeld()
      this.#failResponse(error)
    })
  }

  /** Aborts the response if its header section was sent; otherwise the client gets an error response. Destroys the streams. */
  #failResponse(error: Error): void {
    const sent = this.#sent
    if (this.raw.headersSent) this.abortResponse(error)
    this.#failure = error
    this.gone = error
    // Before the header section is sent, Fastify turns an error of the stream into an error response.
    this.#body!.destroy(error)
    if (sent !== null && sent !== this.#body) sent.destroy(error)
  }

  override withdraw(): void {
    if (this.#stage === 'waiting' || this.raw.headersSent) return
    super.withdraw()
    this.#stage = 'withdrawn'
    this.bytesSent = 0
    removeServiceHeaders(this.reply, this.#given, this.#own)
    this.#body!.destroy()
  }

  override cancel(reason: Error): void {
    super.cancel(reason)
    if (this.#stage === 'hooks') {
      this.#stage = 'cancelled'
      this.#body!.destroy(reason)
    } else this.#body?.destroy()
  }

  /** Ends the exchange with the service if the body is not read to its end. The response to the client may continue. */
  abandon(reason: Error | null): void {
    if (this.isOver) return
    this.gone ??= reason ?? new Error('the body was not read to its end')
    this.controller!.abort(this.gone)
  }
}
