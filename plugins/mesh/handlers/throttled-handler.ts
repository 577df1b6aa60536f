import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController, DispatchHandler } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/** Lets an answer's body through at a limited rate, by pausing after each chunk for as long as it should have taken. */
export class ThrottledHandler extends ForwardingHandler implements DispatchController {
  readonly #bytesPerSecond: number
  readonly #onEnd: () => void
  #source: DispatchController | null = null
  #pause: NodeJS.Timeout | undefined
  #ended = false
  /** By those above. */
  paused = false

  /** `onEnd` is called once, however the answer ends. */
  constructor(next: DispatchHandler, bytesPerSecond: number, onEnd: () => void) {
    super(next)
    this.#bytesPerSecond = bytesPerSecond
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

  abort(reason: Error): void {
    this.#source?.abort(reason)
  }

  pause(): void {
    this.paused = true
    this.#source?.pause()
  }

  resume(): void {
    this.paused = false
    if (this.#pause === undefined) this.#source?.resume()
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
    clearTimeout(this.#pause)
    this.#pause = setTimeout(
      () => {
        this.#pause = undefined
        if (!this.paused) controller.resume()
      },
      (chunk.length / this.#bytesPerSecond) * 1000
    )
    this.next.onResponseData?.(this, chunk)
  }

  override onResponseEnd(_controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#end()
    this.next.onResponseEnd?.(this, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#end()
    this.next.onResponseError?.(controller, error)
  }

  #end(): void {
    if (this.#ended) return
    this.#ended = true
    clearTimeout(this.#pause)
    this.#onEnd()
  }
}
