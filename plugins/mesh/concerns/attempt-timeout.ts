import type { MeshConcern } from '../concern.ts'
import { ConnectionError, MeshError } from '../core/errors.ts'
import type { TimerDeps } from '../core/handlers/headers-timer.ts'
import { HeadersTimerHandler } from '../core/handlers/headers-timer.ts'
import type { Layer } from '../core/layer.ts'
import type { Attempt, DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'

/**
 * Limits the time of one attempt: to get a connection, and from the end of the request to the response's header
 * section. Time in the queue for a connection does not count: that queue is the gateway's, and the call's timeout
 * limits it. Disabled if it is not shorter than the timeout of the whole call.
 */
export const attemptTimeout: Layer = (service, { timeout, attemptTimeout: timeoutMs = timeout }, deps) => {
  if (timeoutMs >= timeout) return null
  return (dispatch) => (opts, handler) =>
    dispatch(opts, new AttemptTimeoutHandler(handler, opts, timeoutMs, service.name, deps))
}

class AttemptTimeoutHandler extends HeadersTimerHandler {
  readonly #call: DispatchController
  readonly #attempt: Attempt
  readonly #service: string
  #expired: Error | null = null
  #reported = false

  constructor(
    next: DispatchHandler,
    { call, attempt }: DispatchOptions,
    timeoutMs: number,
    service: string,
    deps: TimerDeps
  ) {
    super(next)
    this.#call = call!
    this.#attempt = attempt!
    this.#service = service
    this.arm(timeoutMs, deps)
  }

  protected override expire(wasBlocked: boolean): void {
    if (this.#attempt.isQueued) {
      this.restart()
      return
    }
    const error = new MeshError('JW_ATTEMPT_TIMEOUT', this.#service)
    this.#expired = wasBlocked ? new ConnectionError('JW_OUT_OF_CPU', error) : error
    this.controller?.abort(this.#expired)
    // Report here: without a connection, the pool would report only when it has established one.
    this.onResponseError(this.controller ?? this.#call, this.#expired)
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.controller = controller
    if (this.#attempt.waitedMs > 0) this.restart()
    if (this.#expired !== null) controller.abort(this.#expired)
    else this.next.onRequestStart?.(controller, context)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#reported) return
    this.#reported = true
    super.onResponseError(controller, error)
  }
}

export default { name: 'attempt-timeout', layer: attemptTimeout } satisfies MeshConcern
