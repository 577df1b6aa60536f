import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/**
 * A timer up to the response's headers; what follows them is not cut. A body on its way starts it anew, so that
 * a long upload is not taken for a slow answer; one that the service does not take is. A caller who is slow with it
 * costs no time.
 */
export abstract class HeadersTimerHandler extends ForwardingHandler {
  protected controller: DispatchController | null = null
  #timer: NodeJS.Timeout | undefined

  /** Has no effect once the timer runs. */
  protected arm(timeoutMs: number): void {
    this.#timer ??= setTimeout(() => {
      if (this.controller?.awaitsBody) this.waitForBody()
      else this.expire()
    }, timeoutMs)
  }

  protected abstract expire(): void

  /** The caller has sent nothing for the time. */
  protected waitForBody(): void {
    this.restart()
  }

  /** Starts the time anew. */
  protected restart(): void {
    this.#timer?.refresh()
  }

  override onBodySent(chunk: Buffer): void {
    this.#timer?.refresh()
    this.next.onBodySent?.(chunk)
  }

  override onRequestSent(): void {
    this.#timer?.refresh()
    this.next.onRequestSent?.()
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
