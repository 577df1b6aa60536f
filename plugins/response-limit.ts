/** The limit of a response's size, for calls of plugins that read the body into memory. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { Dispatcher } from 'undici'

const BodyTooLarge = createError('JW_UPSTREAM_BODY_TOO_LARGE', '%s: the response is larger than %d bytes', 502)

type Options = Dispatcher.DispatchOptions & { readonly maxResponseSize?: number | false }

/** Limits the size of response bodies. */
export const bound: Dispatcher.DispatcherComposeInterceptor = (dispatch) => (options, handler) => {
  const { maxResponseSize = false, ...rest } = options as Options
  return dispatch(rest, maxResponseSize === false ? handler : new Bounded(handler, rest, maxResponseSize))
}

class Bounded implements Dispatcher.DispatchHandler {
  readonly #next: Dispatcher.DispatchHandler
  readonly #options: Dispatcher.DispatchOptions
  readonly #most: number
  #bytes = 0

  constructor(next: Dispatcher.DispatchHandler, options: Dispatcher.DispatchOptions, most: number) {
    this.#next = next
    this.#options = options
    this.#most = most
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    this.#next.onRequestStart?.(controller, context)
  }

  onRequestUpgrade(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    // Their Content-Length is that of a body that is not sent (RFC 9110, 8.6).
    const isBodiless = this.#options.method === 'HEAD' || status === 304
    if (!isBodiless && Number(headers['content-length']) > this.#most) this.#abort(controller)
    else this.#next.onResponseStart?.(controller, status, headers, text)
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#bytes += chunk.length
    if (this.#bytes > this.#most) this.#abort(controller)
    else this.#next.onResponseData?.(controller, chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders): void {
    this.#next.onResponseEnd?.(controller, trailers)
  }

  onResponseError(controller: Dispatcher.DispatchController, error: Error): void {
    this.#next.onResponseError?.(controller, error)
  }

  #abort(controller: Dispatcher.DispatchController): void {
    controller.abort(new BodyTooLarge(serviceOf(this.#options.origin), this.#most))
  }
}

/** Returns the name of the service that an origin names. */
export const serviceOf = (origin: Dispatcher.DispatchOptions['origin']) =>
  String(origin).replace(/^http:\/\/(.*)\.mesh$/, '$1')
