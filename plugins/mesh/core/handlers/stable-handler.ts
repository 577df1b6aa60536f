import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { isBorrowing } from '../../http/borrowing.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/**
 * The one controller that the layers above hold over all attempts below. undici provides a controller only once an
 * attempt has a connection; a caller that aborts earlier (queued, connecting, between two attempts) aborts here and
 * gets its `onResponseError` at once. Events after the end, or after an abort, are ignored.
 */
export abstract class StableHandler extends ForwardingHandler implements DispatchController {
  /** Completed, failed or aborted: later events from below are ignored. */
  over = false
  aborted = false
  paused = false
  reason: Error | null = null
  // Never undefined, which `exactOptionalPropertyTypes` of a user's program would refuse.
  rawHeaders: NonNullable<DispatchController['rawHeaders']> | null = null
  rawTrailers: NonNullable<DispatchController['rawTrailers']> | null = null
  #source: DispatchController | null = null

  constructor(next: DispatchHandler) {
    super(next)
    this.borrows = isBorrowing(next) ? StableHandler.prototype.onResponseData : undefined
  }

  get awaitsBody(): boolean {
    return this.#source?.awaitsBody ?? false
  }

  /** Aborts the call. `given` is undefined when a caller of undici's `request()` destroys the body. */
  abort(given?: Error): void {
    if (this.over) return
    const reason = given ?? new Error('the caller aborted the call')
    this.aborted = true
    this.reason = reason
    this.#source?.abort(reason)
    // Report here: without a connection, no layer below would.
    this.onResponseError(this, reason)
  }

  pause(): void {
    this.paused = true
    this.#source?.pause()
  }

  resume(): void {
    this.paused = false
    this.#source?.resume()
  }

  /** Detaches the current response, which another will replace: its controller no longer gets the caller's calls. */
  detachSource(): void {
    this.#source = null
  }

  override onRequestStart(controller: DispatchController, _context: unknown): void {
    if (this.over) {
      controller.abort(this.reason ?? new Error('the call is over'))
      return
    }
    this.#source = controller
    if (this.paused) controller.pause()
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    if (this.over) {
      socket.destroy()
      return
    }
    this.rawHeaders = controller.rawHeaders ?? null
    this.next.onRequestUpgrade?.(this, status, headers, socket)
    // The caller may have aborted in the callback.
    if (!this.over) this.finish()
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (this.over) return
    this.rawHeaders = controller.rawHeaders ?? null
    this.next.onResponseStart?.(this, status, headers, text)
  }

  override onResponseData(_controller: DispatchController, chunk: Buffer): void {
    if (!this.over) this.next.onResponseData?.(this, chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.over) return
    this.finish()
    this.rawTrailers = controller.rawTrailers ?? null
    try {
      this.next.onResponseEnd?.(this, trailers)
    } catch (error) {
      // Report here: to the layers below the call is over.
      this.next.onResponseError?.(this, error as Error)
    }
  }

  override onResponseError(_controller: DispatchController, error: Error): void {
    if (this.over) return
    this.finish()
    this.next.onResponseError?.(this, error)
  }

  protected finish(): void {
    this.over = true
  }
}
