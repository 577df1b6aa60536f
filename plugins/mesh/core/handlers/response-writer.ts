import type { IncomingHttpHeaders } from 'node:http'
import { headerPairs } from '../../../http-syntax.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * Writes a response from memory or from another call to a handler: at the handler's pace, with a controller of its own.
 * If the handler throws, the response is aborted, as undici does.
 */
export class ResponseWriter implements DispatchController {
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

  /** Takes callbacks for the handler's pauses (true), resumes (false) and aborts. */
  constructor(handler: DispatchHandler, onPause?: (paused: boolean) => void, onAbort?: (reason: Error) => void) {
    this.#handler = handler
    this.#onPause = onPause
    this.#onAbort = onAbort
  }

  start(context: unknown): void {
    this.#give(() => this.#handler.onRequestStart?.(this, context))
  }

  head(status: number, headers: IncomingHttpHeaders, text?: string): void {
    if (this.#over) return
    // The `fetch` of undici 8 reads headers only here.
    this.rawHeaders ??= headerPairs(headers)
    this.#give(() => this.#handler.onResponseStart?.(this, status, headers, text))
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

  /** Fails the response at once, without its queued chunks: it would not be complete. */
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
    // The handler may call resume() inside onResponseData().
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
