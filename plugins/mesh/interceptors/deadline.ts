import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { MeshError } from '../errors.ts'
import { ForwardingHandler } from '../handler.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/** Bounds the whole call, all attempts and pauses, up to the response's headers: streams are not cut. */
export const deadline: Layer = (service, policy) => (dispatch) => (opts, handler) =>
  dispatch(opts, new DeadlineHandler(handler, policy.timeout, service.name))

class DeadlineHandler extends ForwardingHandler {
  readonly #timeoutMs: number
  readonly #service: string
  #timer: NodeJS.Timeout | undefined
  #controller: DispatchController | null = null

  constructor(next: DispatchHandler, timeoutMs: number, service: string) {
    super(next)
    this.#timeoutMs = timeoutMs
    this.#service = service
  }

  // At once, since `Call` stands below; again only where an interceptor in between repeats the call.
  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#controller = controller
    this.#timer ??= setTimeout(
      () => this.#controller!.abort(new MeshError('JW_CALL_TIMEOUT', this.#service)),
      this.#timeoutMs
    )
    this.next.onRequestStart?.(controller, context)
  }

  override onBodySent(chunk: Buffer): void {
    this.#timer?.refresh()
    this.next.onBodySent?.(chunk)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    clearTimeout(this.#timer)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) clearTimeout(this.#timer)
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    clearTimeout(this.#timer)
    this.next.onResponseError?.(controller, error)
  }
}
