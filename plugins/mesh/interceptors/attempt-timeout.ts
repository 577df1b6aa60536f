import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { MeshError } from '../errors.ts'
import { ForwardingHandler } from '../handler.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * Bounds one attempt, from the queue for a connection to the response's headers. A body on its way starts the
 * time anew, so that a long upload is not taken for a slow answer; one that stalls is.
 */
export const attemptTimeout: Layer = (service, policy) => (dispatch) => (opts, handler) =>
  dispatch(opts, new AttemptTimeoutHandler(handler, opts.call!, policy.attemptTimeout, service.name))

class AttemptTimeoutHandler extends ForwardingHandler {
  readonly #call: DispatchController
  readonly #timer: NodeJS.Timeout
  #controller: DispatchController | null = null
  #expired: MeshError | null = null
  #reported = false

  constructor(next: DispatchHandler, call: DispatchController, timeoutMs: number, service: string) {
    super(next)
    this.#call = call
    this.#timer = setTimeout(() => this.#expire(new MeshError('JW_ATTEMPT_TIMEOUT', service)), timeoutMs)
  }

  #expire(error: MeshError): void {
    this.#expired = error
    this.#controller?.abort(error)
    // Still without a connection: the pool would report only when it has got one.
    this.onResponseError(this.#controller ?? this.#call, error)
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#controller = controller
    if (this.#expired !== null) controller.abort(this.#expired)
    else this.next.onRequestStart?.(controller, context)
  }

  override onBodySent(chunk: Buffer): void {
    this.#timer.refresh()
    this.next.onBodySent?.(chunk)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    clearTimeout(this.#timer)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) clearTimeout(this.#timer)
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#reported) return
    this.#reported = true
    clearTimeout(this.#timer)
    this.next.onResponseError?.(controller, error)
  }
}
