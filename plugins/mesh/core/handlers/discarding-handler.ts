import type { IncomingHttpHeaders } from 'node:http'
import { isBorrowing } from '../../http/borrowing.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/** A discarded response is read up to this size and for this long, to reuse its connection; then it is aborted. */
const mostBytes = 64 * 1024
const mostMs = 1000

/** Can discard a response that another one replaces: the rest of it is read and not passed on. */
export abstract class DiscardingHandler extends ForwardingHandler {
  /** Bytes read of the discarded response; -1 if none is being discarded. */
  #discarded = -1
  #timer: NodeJS.Timeout | undefined

  constructor(next: DispatchHandler) {
    super(next)
    this.borrows = isBorrowing(next) ? DiscardingHandler.prototype.onResponseData : undefined
  }

  /** Reads the rest of the response without passing it on, even if the caller had paused. */
  protected discard(controller: DispatchController): void {
    this.#discarded = 0
    this.#timer = setTimeout(() => controller.abort(new Error('discarded')), mostMs)
    controller.resume()
  }

  protected get discarding(): boolean {
    return this.#discarded >= 0
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    if (this.#discarded < 0) {
      this.next.onResponseData?.(controller, chunk)
    } else {
      this.#discarded += chunk.length
      if (this.#discarded > mostBytes) controller.abort(new Error('discarded'))
    }
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    clearTimeout(this.#timer)
    if (!this.discarding) this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    clearTimeout(this.#timer)
    if (!this.discarding) this.failed(controller, error)
  }

  /** Called when a response fails that is not being discarded. */
  protected failed(controller: DispatchController, error: Error): void {
    this.next.onResponseError?.(controller, error)
  }
}
