import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/**
 * A timer up to the response's headers; what follows them is not cut. A body on its way starts it anew, so that
 * a long upload is not taken for a slow answer; one that stalls is.
 */
export abstract class HeadersTimerHandler extends ForwardingHandler {
  #timer: NodeJS.Timeout | undefined

  /** Has no effect once the timer runs. */
  protected arm(timeoutMs: number): void {
    this.#timer ??= setTimeout(() => this.expire(), timeoutMs)
  }

  protected abstract expire(): void

  override onBodySent(chunk: Buffer): void {
    this.#timer?.refresh()
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
    clearTimeout(this.#timer)
    this.next.onResponseError?.(controller, error)
  }
}
