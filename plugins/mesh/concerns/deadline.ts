import type { MeshConcern } from '../concern.ts'
import { ConnectionError, MeshError } from '../core/errors.ts'
import type { TimerDeps } from '../core/handlers/headers-timer.ts'
import { HeadersTimerHandler } from '../core/handlers/headers-timer.ts'
import type { Layer } from '../core/layer.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

/**
 * Limits the time of the whole call, with all attempts and pauses, from the end of the request to the response's
 * headers. Also limits how long a caller may pause within its request body; that is attributed to no instance.
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
  /** The whole body has been sent once; chunks sent later are those of retries. */
  #whole = false

  constructor(next: DispatchHandler, options: DeadlineOptions) {
    super(next)
    this.#options = options
  }

  // Runs at the start of the call, because `Call` is below; again only if an interceptor in between repeats the call.
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

  // Rounds the idle timeout up to a multiple of the timeout, instead of a timer of its own for a rare case.
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
