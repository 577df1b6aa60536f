import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { ForwardingHandler } from '../../core/handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from '../../core/types.ts'

/** Milliseconds between two parts of a response body. */
const tickMs = 50

/** Passes on a response body at a limited rate: one part per tick, the first one after a tick as well. */
export class ThrottledHandler extends ForwardingHandler implements DispatchController {
  readonly #bytesPerTick: number
  /** Bytes that may be passed on now; unused fractions carry over to the next tick. */
  #credit = 0
  readonly #onEnd: () => void
  #source: DispatchController | null = null
  /** Queued chunks. */
  readonly #waiting: Buffer[] = []
  /** Trailer section of a response that is complete but still has queued chunks; else null. */
  #trailers: IncomingHttpHeaders | null = null
  #tick: NodeJS.Timeout | undefined
  #ended = false
  /** Paused by the layers above. */
  paused = false

  /** Takes a callback, `onEnd`, which is called once when the response ends or fails. */
  constructor(next: DispatchHandler, bytesPerSecond: number, onEnd: () => void) {
    super(next)
    this.#bytesPerTick = (bytesPerSecond * tickMs) / 1000
    this.#onEnd = onEnd
  }

  get aborted(): boolean {
    return this.#source?.aborted ?? false
  }

  get reason(): Error | null {
    return this.#source?.reason ?? null
  }

  get rawHeaders(): DispatchController['rawHeaders'] {
    return this.#source?.rawHeaders
  }

  get rawTrailers(): DispatchController['rawTrailers'] {
    return this.#source?.rawTrailers
  }

  get awaitsBody(): boolean {
    return this.#source?.awaitsBody ?? false
  }

  abort(reason: Error): void {
    this.#source?.abort(reason)
    // The source has ended already and would not report the abort.
    if (this.#trailers !== null && !this.#ended) this.onResponseError(this, reason)
  }

  pause(): void {
    this.paused = true
    this.#source?.pause()
  }

  resume(): void {
    this.paused = false
    if (this.#waiting.length > 0) this.#arm()
    else this.#source?.resume()
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#source = controller
    this.next.onRequestStart?.(this, context)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#end()
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    _controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    this.next.onResponseStart?.(this, status, headers, text)
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    controller.pause()
    this.#waiting.push(chunk)
    this.#arm()
  }

  override onResponseEnd(_controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.#waiting.length > 0) this.#trailers = trailers ?? {}
    else this.#finish(trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#ended) return
    this.#end()
    this.next.onResponseError?.(controller, error)
  }

  #arm(): void {
    this.#tick ??= setTimeout(() => this.#next(), tickMs)
  }

  #next(): void {
    this.#tick = undefined
    if (this.paused) return
    this.#credit += this.#bytesPerTick
    while (this.#credit >= 1 && this.#waiting.length > 0 && !this.paused && !this.#ended) {
      const [chunk] = this.#waiting as [Buffer]
      const part = chunk.subarray(0, Math.floor(this.#credit))
      if (chunk.length > part.length) this.#waiting[0] = chunk.subarray(part.length)
      else this.#waiting.shift()
      this.#credit -= part.length
      this.#give(part)
    }
    if (this.#ended) return
    if (this.#waiting.length > 0) this.#arm()
    else if (this.#trailers !== null) this.#finish(this.#trailers)
    else if (!this.paused) this.#source?.resume()
  }

  /** Passes on a part; aborts if the handler throws, as undici does. */
  #give(part: Buffer): void {
    try {
      this.next.onResponseData?.(this, part)
    } catch (error) {
      this.abort(error as Error)
    }
  }

  #finish(trailers: IncomingHttpHeaders): void {
    this.#end()
    this.next.onResponseEnd?.(this, trailers)
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#tick)
    this.#waiting.length = 0
    this.#onEnd()
  }
}
