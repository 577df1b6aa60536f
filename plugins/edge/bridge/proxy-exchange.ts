/** A response on its way from the seam to @fastify/reply-from, which sends it by `reply.send()`. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { fieldsOf, withoutLength } from '../protocol/headers.ts'
import { Exchange } from './exchange.ts'

/** Passes one response to undici's handler of the call. */
export class ProxyExchange extends Exchange {
  readonly #next: Dispatcher.DispatchHandler
  #begun = false
  #trailers: IncomingHttpHeaders | undefined

  constructor(
    request: FastifyRequest,
    reply: FastifyReply,
    ownsHeaders: readonly string[],
    next: Dispatcher.DispatchHandler
  ) {
    super(request, reply, { ownsHeaders, relocate: null, stalls: null })
    this.#next = next
  }

  override onRequestStart(controller: Dispatcher.DispatchController, context: never): void {
    super.onRequestStart(controller, context)
    this.#next.onRequestStart?.(controller, context)
  }

  protected override begin(status: number, headers: IncomingHttpHeaders, text: string): void {
    this.#begun = true
    const merged = fieldsOf(this.responseHeaders(status === 204 ? withoutLength(headers) : headers))
    // reply-from sets each field on the reply, which would add the cookies of the reply, part of `merged`, a second time.
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
    // reply-from announces none.
    super.onResponseEnd(controller, undefined)
  }

  protected override end(): void {
    this.#next.onResponseEnd?.(this.controller!, this.#trailers ?? {})
  }

  override onResponseError(controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    this.isOver = true
    this.stopTimer()
    // A client that has left gets no response; whoever reads the body learns of it.
    if (this.gone !== null && !this.#begun) return
    if (this.gone === null && this.raw.headersSent) this.breakOff(error)
    this.#next.onResponseError?.(controller, error)
  }
}
