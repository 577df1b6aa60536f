import type { MeshConcern } from '../concern.ts'
import { ConnectionError, MeshError } from '../core/errors.ts'
import type { TimerDeps } from '../core/handlers/headers-timer.ts'
import { HeadersTimerHandler } from '../core/handlers/headers-timer.ts'
import type { Layer } from '../core/layer.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

/**
 * Bounds the whole call, all attempts and pauses, from the end of the request to the response's headers; and how long a
 * caller may be silent within the body, which is nobody's fault but its own.
 */
export const deadline: Layer = (service, { timeout, idleTimeout }, deps) => {
  const idleMs = idleTimeout === false ? Number.POSITIVE_INFINITY : idleTimeout
  const options = { timeoutMs: timeout, idleMs, service: service.name, deps }
  return (dispatch) => (opts, handler) => dispatch(opts, new DeadlineHandler(handler, options))
}

interface DeadlineOptions {
  readonly timeoutMs: number
  readonly idleMs: number
  readonly service: string
  readonly deps: TimerDeps
}

class DeadlineHandler extends HeadersTimerHandler {
  readonly #options: DeadlineOptions
  #silentMs = 0
  /** All of the body was here; what is sent after that is sent again. */
  #whole = false

  constructor(next: DispatchHandler, options: DeadlineOptions) {
    super(next)
    this.#options = options
  }

  // At once, since `Call` stands below; again only where an interceptor in between repeats the call.
  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.controller = controller
    this.arm(this.#options.timeoutMs, this.#options.deps)
    this.next.onRequestStart?.(controller, context)
  }

  override onBodySent(chunk: Buffer): void {
    this.#silentMs = 0
    if (this.#whole) this.next.onBodySent?.(chunk)
    else super.onBodySent(chunk)
  }

  override onRequestSent(): void {
    if (this.#whole) this.next.onRequestSent?.()
    else super.onRequestSent()
    this.#whole = true
  }

  // To the next multiple of the timeout: no timer of its own for what hardly ever happens.
  protected override waitForBody(): void {
    const { timeoutMs, idleMs, service } = this.#options
    this.#silentMs += timeoutMs
    if (this.#silentMs < idleMs) super.waitForBody()
    else this.controller?.abort(new MeshError('JW_CALLER_SILENT', service))
  }

  protected override expire(wasBlocked: boolean): void {
    const error = new MeshError('JW_CALL_TIMEOUT', this.#options.service)
    this.controller?.abort(wasBlocked ? new ConnectionError('JW_OUT_OF_CPU', error) : error)
  }
}

export default { name: 'deadline', layer: deadline } satisfies MeshConcern
