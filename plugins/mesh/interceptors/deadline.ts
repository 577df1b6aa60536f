import { MeshError } from '../errors.ts'
import { HeadersTimerHandler } from '../handlers/headers-timer.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/** Bounds the whole call, all attempts and pauses, from the end of the request to the response's headers. */
export const deadline: Layer = (service, policy) => (dispatch) => (opts, handler) =>
  dispatch(opts, new DeadlineHandler(handler, policy.timeout, service.name))

class DeadlineHandler extends HeadersTimerHandler {
  readonly #timeoutMs: number
  readonly #service: string

  constructor(next: DispatchHandler, timeoutMs: number, service: string) {
    super(next)
    this.#timeoutMs = timeoutMs
    this.#service = service
  }

  // At once, since `Call` stands below; again only where an interceptor in between repeats the call.
  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.controller = controller
    this.arm(this.#timeoutMs)
    this.next.onRequestStart?.(controller, context)
  }

  protected override expire(): void {
    this.controller?.abort(new MeshError('JW_CALL_TIMEOUT', this.#service))
  }
}
