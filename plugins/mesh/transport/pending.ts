import type { Call } from '../call.ts'
import { ForwardingHandler } from '../handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * An attempt that has to wait for a connection. The pool keeps it whatever happens; once its call is over, it gives
 * its place back at once, and what the pool makes of it later is nobody's.
 */
export class PendingHandler extends ForwardingHandler {
  readonly #call: Call
  #begun = false
  #left = false

  constructor(next: DispatchHandler, call: Call) {
    super(next)
    this.#call = call
    call.whenOver(() => this.#leave())
  }

  #leave(): void {
    if (this.#begun || this.#left) return
    this.#left = true
    super.onResponseError(this.#call, this.#reason)
  }

  get #reason(): Error {
    return this.#call.reason ?? new Error('the call was over before its turn came')
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    if (this.#left) {
      controller.abort(this.#reason)
      return
    }
    this.#begun = true
    super.onRequestStart(controller, context)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#left) return
    this.#left = true
    super.onResponseError(controller, error)
  }
}
