import { MeshError } from '../errors.ts'
import { HeadersTimerHandler } from '../handlers/headers-timer.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * Bounds one attempt, from the queue for a connection on, or from the end of the request, to the response's headers.
 * Off where the deadline of the whole call is over no later.
 */
export const attemptTimeout: Layer = (service, { timeout, attemptTimeout: timeoutMs = timeout }) => {
  if (timeoutMs >= timeout) return null
  return (dispatch) => (opts, handler) =>
    dispatch(opts, new AttemptTimeoutHandler(handler, opts.call!, timeoutMs, service.name))
}

class AttemptTimeoutHandler extends HeadersTimerHandler {
  readonly #call: DispatchController
  readonly #service: string
  #expired: MeshError | null = null
  #reported = false

  constructor(next: DispatchHandler, call: DispatchController, timeoutMs: number, service: string) {
    super(next)
    this.#call = call
    this.#service = service
    this.arm(timeoutMs)
  }

  protected override expire(): void {
    this.#expired = new MeshError('JW_ATTEMPT_TIMEOUT', this.#service)
    this.controller?.abort(this.#expired)
    // Still without a connection: the pool would report only when it has got one.
    this.onResponseError(this.controller ?? this.#call, this.#expired)
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.controller = controller
    if (this.#expired !== null) controller.abort(this.#expired)
    else this.next.onRequestStart?.(controller, context)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#reported) return
    this.#reported = true
    super.onResponseError(controller, error)
  }
}
