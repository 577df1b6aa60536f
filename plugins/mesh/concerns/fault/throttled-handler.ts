import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { ForwardingHandler } from '../../core/handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler } from '../../core/types.ts'

/** Milliseconds between two parts of a response. */
const tickMs = 50

/** Lets an answer's body through at a limited rate: a part each tick, the first one included, however it comes. */
export class ThrottledHandler extends ForwardingHandler implements DispatchController {
  readonly #bytesPerTick: number
  /** Bytes that may go on now; what is left of one tick adds up to the next. */
  #credit = 0
  readonly #onEnd: () => void
  #source: DispatchController | null = null
  /** Chunks that wait for their turn. */
  readonly #waiting: Buffer[] = []
  /** Of an answer that has come whole, parts of which still wait. */
  #trailers: IncomingHttpHeaders | null = null
  #tick: NodeJS.Timeout | undefined
  #ended = false
  /** By those above. */
  paused = false

  /** `onEnd` is called once, however the answer ends. */
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
    // To the source it is over: nobody else would tell.
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

  /** As undici does where a handler throws. */
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
