import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { blame } from './blame.ts'
import type { Call } from './call.ts'
import { ForwardingHandler } from './handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from './types.ts'

/** End of a call or an attempt, as far as it tells of the service; `none`: it says neither good nor bad of the service. */
export type Outcome = 'success' | 'error' | 'timeout' | 'none'

/**
 * Calls `ended` once, with the outcome of a call or an attempt and the time from the end of the request to the header
 * section of the response. The time to the end of the body says nothing: a stream or an upgraded connection may last for
 * hours. A long upload is not a slow response either.
 */
export abstract class OutcomeHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #now: () => number
  readonly #timeoutMs: number
  /** Start of the attempt, or of the rest of it, less the time that its call had spent in queues of ours by then. */
  #fromMs: number
  #told = false

  /** `beganMs`: start of the call or the attempt; `timeoutMs`: time limit of the whole call. */
  constructor(next: DispatchHandler, call: Call, beganMs: number, now: () => number, timeoutMs: number) {
    super(next)
    this.#call = call
    this.#now = now
    this.#timeoutMs = timeoutMs
    this.#fromMs = beganMs - call.waitedMs
  }

  /** `error` is null unless the call or the attempt failed without a response. */
  protected abstract ended(outcome: Outcome, latencyMs: number, nowMs: number, error: Error | null): void

  #tell(outcome: Outcome | null, error: Error | null): void {
    if (this.#told) return
    this.#told = true
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
    this.#tell('success', null)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#tell(status >= 500 ? 'error' : 'success', null)
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#tell(null, error)
    this.next.onResponseError?.(controller, error)
  }
}
