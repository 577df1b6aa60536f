import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { blame } from './blame.ts'
import type { Call } from './call.ts'
import { ForwardingHandler } from './handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from './types.ts'

/** Result of a call or an attempt with regard to the service's health; `none`: it does not count. */
export type Outcome = 'success' | 'error' | 'timeout' | 'none'

/**
 * Calls `ended` once, with the outcome of a call or an attempt and the time from the end of the request to the header
 * section of the response. The time to the end of the body is no measure of health: a stream or an upgraded connection
 * may last for hours. The time of an upload does not count either.
 */
export abstract class OutcomeHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #now: () => number
  readonly #timeoutMs: number
  /** Start of the attempt or time of the last body chunk, less the time that its call had spent in queues by then. */
  #fromMs: number
  #reported = false

  /** Takes the start of the call or the attempt (`beganMs`) and the timeout of the whole call (`timeoutMs`). */
  constructor(next: DispatchHandler, call: Call, beganMs: number, now: () => number, timeoutMs: number) {
    super(next)
    this.#call = call
    this.#now = now
    this.#timeoutMs = timeoutMs
    this.#fromMs = beganMs - call.waitedMs
  }

  /** Returns whether a response with this status is a failure. */
  protected isFailure(status: number): boolean {
    return status >= 500
  }

  /** Called once; `error` is null unless the call or the attempt failed without a response. */
  protected abstract ended(outcome: Outcome, latencyMs: number, nowMs: number, error: Error | null): void

  #report(outcome: Outcome | null, error: Error | null): void {
    if (this.#reported) return
    this.#reported = true
    const now = this.#now()
    const latencyMs = now - this.#fromMs - this.#call.waitedMs
    const ending = outcome ?? blame(error!, this.#call, latencyMs, this.#timeoutMs) ?? 'none'
    this.ended(ending, latencyMs, now, error)
  }

  override onBodySent(chunk: Buffer): void {
    this.#fromMs = this.#now() - this.#call.waitedMs
    this.next.onBodySent?.(chunk)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#report('success', null)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#report(this.isFailure(status) ? 'error' : 'success', null)
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#report(null, error)
    this.next.onResponseError?.(controller, error)
  }
}
