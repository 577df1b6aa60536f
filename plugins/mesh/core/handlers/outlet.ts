import type { IncomingHttpHeaders } from 'node:http'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * Gives an answer that is already in memory, or comes from elsewhere, to a handler: at the handler's own pace, with a
 * controller of its own, and with undici's manners where the handler throws.
 */
export class Outlet implements DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: DispatchController['rawHeaders']
  rawTrailers: DispatchController['rawTrailers']
  readonly #handler: DispatchHandler
  readonly #onPause: ((paused: boolean) => void) | undefined
  readonly #onAbort: ((reason: Error) => void) | undefined
  #waiting: Buffer[] = []
  #trailers: IncomingHttpHeaders | null = null
  #over = false
  #flushing = false

  /** `onPause` and `onAbort` are told what the handler wants. */
  constructor(handler: DispatchHandler, onPause?: (paused: boolean) => void, onAbort?: (reason: Error) => void) {
    this.#handler = handler
    this.#onPause = onPause
    this.#onAbort = onAbort
  }

  start(context: unknown): void {
    this.#give(() => this.#handler.onRequestStart?.(this, context))
  }

  head(status: number, headers: IncomingHttpHeaders, text?: string): void {
    if (!this.#over) this.#give(() => this.#handler.onResponseStart?.(this, status, headers, text))
  }

  data(chunk: Buffer): void {
    if (this.#over) return
    this.#waiting.push(chunk)
    this.#flush()
  }

  end(trailers: IncomingHttpHeaders): void {
    if (this.#over) return
    this.#trailers = trailers
    this.#flush()
  }

  /** At once, whatever waits: the answer will never be whole. */
  fail(error: Error): void {
    if (this.#over) return
    this.#end()
    this.#handler.onResponseError?.(this, error)
  }

  abort(reason: Error): void {
    if (this.#over) return
    this.aborted = true
    this.reason = reason
    this.#end()
    this.#onAbort?.(reason)
    this.#handler.onResponseError?.(this, reason)
  }

  pause(): void {
    if (this.paused) return
    this.paused = true
    if (!this.#over) this.#onPause?.(true)
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.#flush()
    if (!(this.paused || this.#over)) this.#onPause?.(false)
  }

  #end(): void {
    this.#over = true
    this.#waiting = []
  }

  #flush(): void {
    // The handler may call resume() while it is given a chunk.
    if (this.#flushing) return
    this.#flushing = true
    let given = 0
    while (!this.paused && !this.#over && given < this.#waiting.length) {
      const chunk = this.#waiting[given++]!
      this.#give(() => this.#handler.onResponseData?.(this, chunk))
    }
    if (!this.#over) this.#waiting.splice(0, given)
    this.#flushing = false
    if (this.paused || this.#over || this.#waiting.length > 0 || this.#trailers === null) return
    const trailers = this.#trailers
    this.#end()
    try {
      this.#handler.onResponseEnd?.(this, trailers)
    } catch (error) {
      this.#handler.onResponseError?.(this, error as Error)
    }
  }

  #give(call: () => void): void {
    try {
      call()
    } catch (error) {
      this.abort(error as Error)
    }
  }
}
