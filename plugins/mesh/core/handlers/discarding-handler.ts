import type { IncomingHttpHeaders } from 'node:http'
import { isBorrowing } from '../../http/borrowing.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/** An answer that is thrown away is read up to this size and for this long, to keep its connection; then it is cut. */
const mostBytes = 64 * 1024
const mostMs = 1000

/** Can throw away an answer in favour of another: what is left of it reaches nobody. */
export abstract class DiscardingHandler extends ForwardingHandler {
  /** Bytes read of an answer that is being thrown away; -1 when none is. */
  #discarded = -1
  #timer: NodeJS.Timeout | undefined

  constructor(next: DispatchHandler) {
    super(next)
    this.borrows = isBorrowing(next) ? DiscardingHandler.prototype.onResponseData : undefined
  }

  /** Reads on to the end of an answer that nobody gets, also where the caller had paused. */
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

  /** It failed, and not in what was thrown away. */
  protected failed(controller: DispatchController, error: Error): void {
    this.next.onResponseError?.(controller, error)
  }
}
