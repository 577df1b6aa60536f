import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { blame } from './blame.ts'
import type { Call } from './call.ts'
import { ForwardingHandler } from './handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from './types.ts'

/** How a call or an attempt ended, as far as it tells of the service; `none` blames and praises nobody. */
export type Outcome = 'success' | 'error' | 'timeout' | 'none'

/**
 * Tells once how it ended, and how long its headers took from the end of the request. The headers decide:
 * what follows them, a stream or an upgraded connection, may take any time.
 */
export abstract class OutcomeHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #now: () => number
  readonly #timeoutMs: number
  #fromMs: number
  #told = false

  /** `beganMs`: when what it watches began; `timeoutMs`: of the whole call. */
  constructor(next: DispatchHandler, call: Call, beganMs: number, now: () => number, timeoutMs: number) {
    super(next)
    this.#call = call
    this.#now = now
    this.#timeoutMs = timeoutMs
    this.#fromMs = beganMs - call.waitedMs
  }

  protected abstract ended(outcome: Outcome, latencyMs: number, nowMs: number): void

  #tell(outcome: Outcome | null, error?: Error): void {
    if (this.#told) return
    this.#told = true
    const now = this.#now()
    const latencyMs = now - this.#fromMs - this.#call.waitedMs
    this.ended(outcome ?? blame(error!, this.#call, latencyMs, this.#timeoutMs) ?? 'none', latencyMs, now)
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
    this.#tell('success')
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#tell(status >= 500 ? 'error' : 'success')
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#tell(null, error)
    this.next.onResponseError?.(controller, error)
  }
}
