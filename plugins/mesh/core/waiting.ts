import type { Dispatch, DispatchHandler, DispatchOptions } from './types.ts'

/** A queued attempt. */
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

/** FIFO queue of attempts. An attempt whose call ends is removed from any position; hence a linked list. */
export class WaitQueue {
  size = 0
  #first: Waiter | null = null
  #last: Waiter | null = null
  readonly #now: () => number
  readonly #onLeave: (() => void) | undefined

  /** Creates an empty queue; `onLeave` is called when an attempt is removed because its call has ended. */
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

  /** Removes and returns the first attempt; null if the queue is empty. */
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
    // For layers above that count attempts in flight; the caller itself has received its error, or needs none.
    waiter.handler.onResponseError?.(waiter.opts.call!, new Error('the call ended while it was queued'))
  }

  #remove(waiter: Waiter): void {
    waiter.waits = false
    // Time in the gateway's own queues is not latency of the service.
    waiter.opts.call!.waitedMs += this.#now() - waiter.sinceMs
    if (waiter.before === null) this.#first = waiter.after
    else waiter.before.after = waiter.after
    if (waiter.after === null) this.#last = waiter.before
    else waiter.after.before = waiter.before
    waiter.before = waiter.after = null
    this.size--
  }
}
