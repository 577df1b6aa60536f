/** Passes a response of the mesh to @fastify/reply-from, which sends it by `reply.send()`. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { fieldsOf, withoutLength } from '../protocol/headers.ts'
import type { ResponseRules } from './exchange.ts'
import { Exchange } from './exchange.ts'

/** Passes one response to undici's handler of the call. */
export class ProxyExchange extends Exchange {
  readonly #next: Dispatcher.DispatchHandler
  #isStarted = false
  #trailers: IncomingHttpHeaders | undefined

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    rules: Pick<ResponseRules, 'ownsHeaders' | 'relocate'>,
    next: Dispatcher.DispatchHandler
  ) {
    super(request, reply, { ...rules, isTransparent: false, stalls: null, errorBodies: null })
    this.#next = next
  }

  override onRequestStart(controller: Dispatcher.DispatchController, context: never): void {
    super.onRequestStart(controller, context)
    this.#next.onRequestStart?.(controller, context)
  }

  protected override begin(status: number, headers: IncomingHttpHeaders, text: string): void {
    this.#isStarted = true
    const merged = fieldsOf(this.responseHeaders(status === 204 ? withoutLength(headers) : headers))
    // `merged` includes the reply's cookies. Remove them: reply-from sets each field, which would add them twice.
    if (merged['set-cookie'] !== undefined) this.reply.removeHeader('set-cookie')
    this.#next.onResponseStart?.(this.controller!, status, merged, text)
  }

  override onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.gone !== null) return
    this.bytesSent += chunk.length
    this.#next.onResponseData?.(controller, chunk)
  }

  override onResponseEnd(controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders | undefined): void {
    this.#trailers = trailers
    // No trailers: reply-from does not announce them.
    super.onResponseEnd(controller, undefined)
  }

  protected override complete(): void {
    this.#next.onResponseEnd?.(this.controller!, this.#trailers ?? {})
  }

  override onResponseError(controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    this.isOver = true
    this.stopTimer()
    // A disconnected client gets no response; only a reader of a started body gets the error.
    if (this.gone !== null && !this.#isStarted) return
    if (this.gone === null && this.raw.headersSent) this.abortResponse(error)
    this.#next.onResponseError?.(controller, error)
  }
}
