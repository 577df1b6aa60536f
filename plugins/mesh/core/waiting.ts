import type { Dispatch, DispatchHandler, DispatchOptions } from './types.ts'

/** An attempt that waits for its turn. */
class Waiter {
  readonly dispatch: Dispatch
  readonly opts: DispatchOptions
  readonly handler: DispatchHandler
  readonly sinceMs: number
  before: Waiter | null = null
  after: Waiter | null = null
  waits = true

  constructor(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler, sinceMs: number) {
    this.dispatch = dispatch
    this.opts = opts
    this.handler = handler
    this.sinceMs = sinceMs
  }
}

/** First come, first served; one whose call is over leaves from wherever it stands. A list, so that leaving is cheap. */
export class WaitQueue {
  size = 0
  #first: Waiter | null = null
  #last: Waiter | null = null
  readonly #now: () => number
  readonly #onLeave: (() => void) | undefined

  /** `onLeave` is called when one has left without its turn. */
  constructor(now: () => number, onLeave?: () => void) {
    this.#now = now
    this.#onLeave = onLeave
  }

  join(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): void {
    const waiter = new Waiter(dispatch, opts, handler, this.#now())
    waiter.before = this.#last
    if (this.#last === null) this.#first = waiter
    else this.#last.after = waiter
    this.#last = waiter
    this.size++
    opts.call!.whenOver(() => this.#leave(waiter))
  }

  /** Takes the first out of the queue; null where nobody waits. */
  next(): Waiter | null {
    const waiter = this.#first
    if (waiter === null) return null
    this.#remove(waiter)
    return waiter
  }

  #leave(waiter: Waiter): void {
    if (!waiter.waits) return
    this.#remove(waiter)
    this.#onLeave?.()
    // For those above that count what is in flight: the caller has been told, or needs no answer.
    waiter.handler.onResponseError?.(waiter.opts.call!, new Error('the call ended while it was queued'))
  }

  #remove(waiter: Waiter): void {
    waiter.waits = false
    // Our own queues are no latency of the service.
    waiter.opts.call!.waitedMs += this.#now() - waiter.sinceMs
    if (waiter.before === null) this.#first = waiter.after
    else waiter.before.after = waiter.after
    if (waiter.after === null) this.#last = waiter.before
    else waiter.after.before = waiter.before
    waiter.before = waiter.after = null
    this.size--
  }
}
