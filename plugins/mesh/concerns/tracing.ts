/** A span for each attempt, of which the service learns by `traceparent`. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { fieldOf, headerPairs, withValue } from '../../http-syntax.ts'
import { AttemptSpan, isSampled, parseTraceparent, traceparentOf } from '../../spans.ts'
import type { MeshConcern } from '../concern.ts'
import type { Call } from '../core/call.ts'
import { AttemptUnneeded } from '../core/errors.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

/**
 * Records the attempts of calls whose caller has a span. The parent is the span that the call's `traceparent` names: a plugin
 * may have made one of its own.
 */
export const tracing: Layer = ({ name: service }, _policy, { spanRecorder }) => {
  if (!spanRecorder) return null
  return (dispatch) => (opts, handler) => {
    const { trace } = opts
    if (trace === undefined) return dispatch(opts, handler)
    const pairs = headerPairs(opts.headers)
    const given = fieldOf(pairs, 'traceparent')
    const parent = (given === undefined ? null : parseTraceparent(given)) ?? trace
    if (!isSampled(parent)) return dispatch(opts, handler)
    const { method, path } = opts
    const call = opts.call!
    const sent = { method, path, service, origin: opts.instance!.origin, resends: call.started - 1 }
    const span = new AttemptSpan(spanRecorder, parent, sent)
    const headers = given === undefined ? pairs : withValue(pairs, 'traceparent', traceparentOf(span))
    try {
      return dispatch({ ...opts, headers }, new SpanHandler(handler, span, call))
    } catch (error) {
      // An interceptor threw.
      span.end(error as Error)
      throw error
    }
  }
}

class SpanHandler extends ForwardingHandler {
  readonly #span: AttemptSpan
  readonly #call: Call
  #status = 0

  constructor(next: DispatchHandler, span: AttemptSpan, call: Call) {
    super(next)
    this.#span = span
    this.#call = call
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#span.end(status)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    this.#status = status
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#span.end(this.#status)
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    const { aborted, reason } = this.#call
    const cause = (aborted ? reason : null) ?? error
    // An error response may be aborted because a retry follows; its status is the outcome.
    this.#span.end(this.#status >= 400 ? this.#status : cause, cause instanceof AttemptUnneeded)
    this.next.onResponseError?.(controller, error)
  }
}

export default { name: 'tracing', layer: tracing } satisfies MeshConcern
