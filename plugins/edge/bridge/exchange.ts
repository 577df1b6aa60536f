/** The part of a response's way back over the bridge that does not depend on how its body is written. */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { CallContext, CallRecord } from '../../seam.ts'
import { inContext } from '../async-context.ts'
import { recordFailure } from '../errors.ts'
import { recordFirstByte } from '../outcome.ts'
import { endToEnd, isWebSocket, withoutLength } from '../protocol/headers.ts'
import { breakOff } from './break-off.ts'
import { writeInformational } from './informational.ts'
import type { Relocate } from './location.ts'
import { isNoTrailer, responseHeaders } from './response-fields.ts'
import type { StalledStreams } from './stalled-streams.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Exchange with the service, from its begin on. */
    exchange: {
      readonly call: CallRecord | null
      readonly bytesSent: number
      /** True once the response that came over the seam is the client's. */
      readonly hasResponded: boolean
      /**
       * Milliseconds from the begin of the exchange to the final header section of the response, or to the failure: all
       * attempts, queues and pauses included. Null before, and where the request is not timed.
       */
      readonly upstreamMs: number | null
      /** Ends the exchange without a response, as the client has left. */
      cancel: (reason: Error) => void
      /** Ends the exchange; the client gets the reason as an error response if the header section is not sent yet. */
      fail: (reason: Error) => void
      /** Ends an exchange whose response is complete before the service's is, as a plugin has responded instead. */
      release: () => void
      /** Removes from the reply what it has of the service, as an error response takes its place. */
      withdraw: () => void
    } | null
  }
}

/** Characters of a reason phrase; one with others is left out. */
export const reasonPhrase = /^[\t\x20-\x7e\x80-\xff]*$/

const BadUpgrade = createError('JW_BAD_UPGRADE', 'The service switched to a protocol that was not requested', 502)

/** Rules of a route for responses of its service. */
export interface ResponseRules {
  /** Beginnings of names of headers that concerns set for the service, whose own are left out. */
  readonly ownsHeaders: readonly string[]
  /** Changes locations back; null where the route changes neither path nor host. */
  readonly relocate: Relocate | null
  /** Bounds streams of `onSend` hooks; null where there are none, or they have any time. */
  readonly stalls: StalledStreams | null
}

/** Handler of the seam for one request. Subclasses write the final response to the client. */
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
  /** Reason why nothing more of the service is written to the client; null until then. */
  protected gone: Error | null = null
  /** True once the service's part has ended: complete, failed, or a WebSocket now. */
  protected isOver = false
  protected readonly rules: ResponseRules
  /** Time of the request at which the exchange began. */
  readonly #begunMs: number

  constructor(request: FastifyRequest, reply: FastifyReply, rules: ResponseRules) {
    this.request = request
    this.reply = reply
    this.raw = reply.raw
    this.isHttp2 = request.raw.httpVersionMajor > 1
    this.rules = rules
    this.#begunMs = request.isTimed ? reply.elapsedTime : 0
  }

  /** Ends the time of the service; a later call changes nothing. */
  protected stopTimer(): void {
    if (this.upstreamMs === null && this.request.isTimed) this.upstreamMs = this.reply.elapsedTime - this.#begunMs
  }

  /** Begins the final response; `text` is the reason phrase. */
  protected abstract begin(status: number, headers: IncomingHttpHeaders, text: string): void
  abstract onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void
  /** Writes the end of the response, after its trailer section was handed to Node. */
  protected abstract end(): void

  cancel(reason: Error): void {
    this.gone = reason
    this.stopTimer()
    this.controller?.abort(reason)
  }

  fail(reason: Error): void {
    this.controller?.abort(reason)
  }

  release(): void {
    if (!this.isOver) this.cancel(new Error('the client has a response that is not the service’s, or not all of it'))
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
    else if (status < 200) writeInformational(this.request, this.raw, status, headers)
    else {
      this.stopTimer()
      this.hasResponded = true
      this.begin(status, headers, text)
    }
  }

  /** The client and the service talk WebSocket from here on; the exchange ends when they have ended. */
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
    raw.socket!.setDefaultEncoding('latin1') // or the values would be written as UTF-8
    raw.flushHeaders()
    this.hasResponded = true
    recordFirstByte(request, this.reply)
    this.reply.hijack()
    raw.detachSocket(raw.socket!)
    upgrade.open(service, (bytesSent, error) => {
      this.bytesSent = bytesSent
      if (error !== null && request.failure === null) recordFailure(request, error)
      // The response is over, in Fastify's eyes too: its onResponse hooks run now.
      raw.emit('finish')
    })
  }

  /** Returns the header section for the client as name, value, name, value; `announces` trailers. */
  protected responseHeaders(given: IncomingHttpHeaders, announces = false): string[] {
    const own = this.reply.getHeaders()
    return responseHeaders(this.relocated(given), own, this.isHttp2, this.rules.ownsHeaders, announces)
  }

  protected relocated(given: IncomingHttpHeaders): IncomingHttpHeaders {
    const { relocate } = this.rules
    return relocate === null ? given : relocate(given, this.request, this.call?.instance ?? null)
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders | undefined): void {
    this.isOver = true
    if (this.gone !== null) return
    if (trailers !== undefined) {
      const passed = endToEnd(trailers, this.isHttp2).filter(([name]) => !isNoTrailer(name))
      if (passed.length > 0) this.raw.addTrailers(Object.fromEntries(passed) as Record<string, string>)
    }
    this.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    this.isOver = true
    if (this.gone !== null) return
    this.stopTimer()
    if (this.raw.headersSent) this.breakOff(error)
    else inContext(this.request, () => this.reply.send(error))
  }

  /** Too late for a status: a broken connection tells the client that the body is not whole. */
  protected breakOff(error: Error): void {
    recordFailure(this.request, error)
    breakOff(this.request.raw, this.raw)
  }
}
