import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Timer } from '../../../clock.ts'
import { systemTimers } from '../../../clock.ts'
import type { DispatchController, MeshDeps } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/** Dependencies of the timer. */
export type TimerDeps = Pick<MeshDeps, 'stalledMs' | 'timers'>

/**
 * A timer that runs until the response's headers; it does not limit the body. Each sent chunk of the request body
 * restarts it, so that a long upload does not count as a slow response, but a service that does not read the body does.
 * Time in which the caller does not send its body does not count.
 */
export abstract class HeadersTimerHandler extends ForwardingHandler {
  protected controller: DispatchController | null = null
  #timer: Timer | undefined
  #timeoutMs = 0
  #stalledMs: TimerDeps['stalledMs'] | undefined
  #timers = systemTimers
  /** Time for which the event loop had been blocked when the timeout, or its extension, began. */
  #stalledBeforeMs = 0
  /** Time that was added since the event loop was blocked. */
  #addedMs = 0
  #extension: Timer | undefined

  /**
   * Starts the timer; no effect if it runs. Blocks of the event loop extend it, at most to twice its length, because
   * the response may be in the kernel, unread.
   */
  protected arm(timeoutMs: number, { stalledMs, timers = systemTimers }: TimerDeps): void {
    if (this.#timer !== undefined) return
    this.#timeoutMs = timeoutMs
    this.#stalledMs = stalledMs
    this.#timers = timers
    this.#begin()
    this.#timer = this.#timers.setTimeout(() => this.#fire(), timeoutMs)
  }

  #begin(): void {
    this.#addedMs = 0
    this.#stalledBeforeMs = this.#stalledMs?.() ?? 0
  }

  #fire(): void {
    const stalledMs = this.#stalledMs?.() ?? 0
    const blockedMs = stalledMs - this.#stalledBeforeMs
    const addMs = Math.min(blockedMs, this.#timeoutMs - this.#addedMs)
    if (addMs >= 1) {
      this.#addedMs += addMs
      this.#stalledBeforeMs = stalledMs
      this.#extension = this.#timers.setTimeout(() => this.#fire(), addMs)
    } else if (this.controller?.awaitsBody) this.waitForBody()
    else this.expire(blockedMs > 0)
  }

  /**
   * Called at the timeout. `wasBlocked`: the longest extension was used up, and the event loop was blocked in it as
   * well.
   */
  protected abstract expire(wasBlocked: boolean): void

  /** Called at the timeout if the request body waits for the caller. */
  protected waitForBody(): void {
    this.restart()
  }

  /** Restarts the timer. */
  protected restart(): void {
    if (this.#timer === undefined) return
    this.#timers.clearTimeout(this.#extension)
    this.#begin()
    this.#timer.refresh()
  }

  #stop(): void {
    this.#timers.clearTimeout(this.#timer)
    this.#timers.clearTimeout(this.#extension)
  }

  override onBodySent(chunk: Buffer): void {
    this.restart()
    this.next.onBodySent?.(chunk)
  }

  override onRequestSent(): void {
    this.restart()
    this.next.onRequestSent?.()
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#stop()
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#stop()
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#stop()
    this.next.onResponseError?.(controller, error)
  }
}
