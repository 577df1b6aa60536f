/** Handling of a service's response that is the same on both response paths. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { STATUS_CODES } from '../../node-http.ts'
import type { CallContext, CallRecord } from '../../seam.ts'
import { inContext } from '../async-context.ts'
import type { ErrorBodies } from '../error-bodies.ts'
import { setErrorBody } from '../error-bodies.ts'
import { recordFailure, standardBody } from '../errors.ts'
import { recordFirstByte } from '../outcome.ts'
import { isWebSocket, nominated, withoutLength } from '../protocol/headers.ts'
import { abortResponse } from './abort-response.ts'
import { writeInformational } from './informational.ts'
import type { Relocate } from './location.ts'
import { fieldsBesides, fieldValue, hasOtherBytes, isForbiddenTrailer, responseHeaders } from './response-fields.ts'
import type { StalledStreams } from './stalled-streams.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Exchange with the service; null before the request reaches the bridge. */
    exchange: {
      readonly call: CallRecord | null
      readonly bytesSent: number
      /** True once the service's response is the one that the client gets. */
      readonly hasResponded: boolean
      /** True if a body of the gateway replaces that of the service's error response. */
      readonly isReplaced: boolean
      /**
       * Milliseconds from the start of the exchange to the final header section of the response, or to the failure,
       * including all attempts, queues and pauses. Null before, and if `isTimed` is false.
       */
      readonly upstreamMs: number | null
      /** Ends the exchange without a response, because the client has disconnected. */
      cancel: (reason: Error) => void
      /** Ends the exchange. The client gets the reason as an error response unless the header section has been sent. */
      fail: (reason: Error) => void
      /** Ends the exchange if it is still running when the client has its whole response, for example that of a plugin. */
      release: () => void
      /** Removes the service's headers and body from the reply, because an error response replaces it. */
      withdraw: () => void
    } | null
  }
}

/** Allowed characters of a reason phrase; a phrase with others is omitted. */
export const reasonPhrase = /^[\t\x20-\x7e\x80-\xff]*$/

const BadUpgrade = createError('JW_BAD_UPGRADE', 'The service switched to a protocol that was not requested', 502)

/** Rules of a route for the responses of its service. */
export interface ResponseRules {
  /** Prefixes of header names that concerns set in place of the service; the service's own are removed. */
  readonly ownsHeaders: readonly string[]
  /** True if fields by which a service would imitate the gateway are passed on. */
  readonly isTransparent: boolean
  /** Translates `Location` back; null if the route changes neither path nor host. */
  readonly relocate: Relocate | null
  /** Limits the time of streams of `onSend` hooks; null if there are none, or they have no limit. */
  readonly stalls: StalledStreams | null
  /** Bodies in place of those of error responses; null if all are passed on. */
  readonly errorBodies: ErrorBodies | null
}

/** Fields of a service's error response that remain if its body is replaced. */
const keptOfErrors = ['retry-after', 'www-authenticate', 'allow']

/** Bytes of a replaced body that are read and dropped, so that its connection can be used again. A longer one ends it. */
const droppedBytes = 64 * 1024

/** Dispatch handler for one request. Subclasses write the final response to the client. */
export abstract class Exchange implements Dispatcher.DispatchHandler {
  call: CallRecord | null = null
  bytesSent = 0
  hasResponded = false
  upstreamMs: number | null = null
  protected readonly request: FastifyRequest
  protected readonly reply: FastifyReply
  protected readonly raw: ServerResponse
  protected readonly isHttp2: boolean
  protected controller: Dispatcher.DispatchController | null = null
  /**
   * Reason why no more bytes of the service are written to the client; null until then. The client may still be connected,
   * for example when a hook has replaced the body.
   */
  protected gone: Error | null = null
  /** True once the dispatch has ended: response complete, failed, or upgraded to a WebSocket. */
  protected isOver = false
  protected readonly rules: ResponseRules
  /** Elapsed time of the request at the start of the exchange. */
  readonly #startMs: number
  /** Bytes of a replaced body that may still come; null if none is replaced. */
  #droppable: number | null = null

  constructor(request: FastifyRequest, reply: FastifyReply, rules: ResponseRules) {
    this.request = request
    this.reply = reply
    this.raw = reply.raw
    this.isHttp2 = request.raw.httpVersionMajor > 1
    this.rules = rules
    this.#startMs = request.isTimed ? reply.elapsedTime : 0
  }

  get isReplaced(): boolean {
    return this.#droppable !== null
  }

  /** Records `upstreamMs`; a later call changes nothing. */
  protected stopTimer(): void {
    if (this.upstreamMs === null && this.request.isTimed) this.upstreamMs = this.reply.elapsedTime - this.#startMs
  }

  /** Starts the final response; `text` is the reason phrase. */
  protected abstract begin(status: number, headers: IncomingHttpHeaders, text: string): void
  abstract onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void
  /** Completes the response: all bytes and the trailer section of the service have been passed on. */
  protected abstract complete(): void

  cancel(reason: Error): void {
    this.gone = reason
    this.stopTimer()
    this.controller?.abort(reason)
  }

  fail(reason: Error): void {
    this.controller?.abort(reason)
  }

  release(): void {
    if (!this.isOver)
      this.cancel(new Error('no longer needed: the client got another response, or its response ended first'))
  }

  withdraw(): void {
    this.hasResponded = false
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: CallContext | null): void {
    this.controller = controller
    this.call ??= context?.call ?? null
    if (this.gone !== null) controller.abort(this.gone)
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text = ''
  ): void {
    if (this.gone !== null) return
    if (this.raw.headersSent || this.reply.sent) this.release()
    else if (status < 200) {
      writeInformational(
        this.request,
        this.raw,
        status,
        fieldsBesides(withoutLength(headers), this.isHttp2, this.rules)
      )
    } else {
      this.stopTimer()
      this.hasResponded = true
      const { errorBodies } = this.rules
      const isReplaced = errorBodies?.replaces(status) === true && this.call?.substituteKind !== 'static'
      const { onServiceResponse } = this.request
      const passed = onServiceResponse === null ? headers : onServiceResponse(this.#shown(headers, isReplaced), status)
      if (isReplaced) this.#replace(status, passed, errorBodies)
      else this.begin(status, passed, text)
    }
  }

  /** Returns the fields of the service that may reach the client: concerns add their own if the service has none. */
  #shown(headers: IncomingHttpHeaders, isReplaced: boolean): IncomingHttpHeaders {
    const dropped = nominated(headers.connection)
    if (!isReplaced && dropped === null) return headers
    this.request.serviceHeaders = headers
    const isPassed = (name: string) => (isReplaced ? keptOfErrors.includes(name) : dropped?.has(name) !== true)
    return Object.fromEntries(Object.entries(headers).filter(([name]) => name === 'connection' || isPassed(name)))
  }

  /** Sends a body of the gateway in place of an error response. If that of the service is not over by then, `release` ends it. */
  #replace(status: number, headers: IncomingHttpHeaders, bodies: ErrorBodies): void {
    const { request, reply } = this
    this.gone = new Error('another body replaces that of the error response')
    this.#droppable = droppedBytes
    inContext(request, () => {
      for (const name of keptOfErrors) {
        const value = headers[name]
        const isOwned = this.rules.ownsHeaders.some((prefix) => name.startsWith(prefix)) || reply.hasHeader(name)
        if (value !== undefined && !isOwned && fieldValue.test(String(value))) reply.header(name, value)
      }
      const message = STATUS_CODES[status] ?? 'Error'
      const page = bodies.bodyOf({ status, code: undefined, message }, request)
      if (page === null) reply.header('content-type', 'application/json; charset=utf-8')
      else setErrorBody(page, reply)
      const body = Buffer.from(page?.body ?? standardBody(status, request))
      if (request.method !== 'HEAD') this.bytesSent = body.length
      reply.code(status).send(body)
    })
  }

  /**
   * Returns whether no client gets a chunk, such as an empty one of an interceptor. Ends the exchange once a replaced body is too
   * long to be read to its end.
   */
  protected isDropped({ length }: Buffer): boolean {
    if (this.gone === null) return length === 0
    if (this.#droppable !== null) {
      this.#droppable -= length
      if (this.#droppable < 0) this.controller!.abort(this.gone)
    }
    return true
  }

  /** Joins client and service as a WebSocket. The exchange ends when the WebSocket has ended. */
  onRequestUpgrade(
    _controller: Dispatcher.DispatchController,
    _status: number,
    headers: IncomingHttpHeaders,
    service: Duplex
  ): void {
    if (this.gone !== null) {
      service.destroy()
      return
    }
    const { raw, request } = this
    const { upgrade } = request
    if (upgrade === null || !isWebSocket(headers.upgrade)) throw new BadUpgrade()
    this.isOver = true
    this.stopTimer()
    const passed = withoutLength(headers)
    raw.writeHead(101, [...this.responseHeaders(passed), 'connection', 'Upgrade', 'upgrade', 'websocket'])
    raw.socket!.setDefaultEncoding('latin1') // otherwise Node writes the values as UTF-8
    raw.flushHeaders()
    this.hasResponded = true
    recordFirstByte(request, this.reply)
    this.reply.hijack()
    raw.detachSocket(raw.socket!)
    upgrade.open(service, (bytesSent, error) => {
      this.bytesSent = bytesSent
      if (error !== null && request.failure === null) recordFailure(request, error)
      // Ends the response for Fastify, too, which runs the onResponse hooks now.
      raw.emit('finish')
    })
  }

  /** Returns the header section for the client as name, value, name, value; with `Trailer` if `announces`. */
  protected responseHeaders(given: IncomingHttpHeaders, announces = false): string[] {
    const own = this.reply.getHeaders()
    const { ownsHeaders, isTransparent } = this.rules
    return responseHeaders(this.relocated(given), own, this.isHttp2, ownsHeaders, isTransparent, announces)
  }

  protected relocated(given: IncomingHttpHeaders): IncomingHttpHeaders {
    const { relocate } = this.rules
    return relocate === null ? given : relocate(given, this.request, this.call?.instance ?? null)
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders | undefined): void {
    this.isOver = true
    if (this.gone !== null) return
    if (trailers !== undefined) {
      const fields = fieldsBesides(trailers, this.isHttp2, this.rules)
      const passed = fields.filter(([name]) => !isForbiddenTrailer(name) && !hasOtherBytes(this.request, name))
      if (passed.length > 0) this.raw.addTrailers(Object.fromEntries(passed) as Record<string, string>)
    }
    this.complete()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    this.isOver = true
    if (this.gone !== null) return
    this.stopTimer()
    if (this.raw.headersSent) this.abortResponse(error)
    else inContext(this.request, () => this.reply.send(error))
  }

  /** Resets the response after its status was sent: so the client sees that the body is incomplete. */
  protected abortResponse(error: Error): void {
    recordFailure(this.request, error)
    abortResponse(this.request.raw, this.raw)
  }
}
