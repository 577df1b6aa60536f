import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/**
 * Calls `ended` once: when the response has ended or failed, or when the socket of an upgrade has closed. An upgraded
 * connection has no end of a response, so it counts as in flight until its socket closes.
 */
export abstract class EndingHandler extends ForwardingHandler {
  over = false

  /** Runs before the end is passed to the handler above. */
  protected abstract ended(): void

  #end(): void {
    if (this.over) return
    this.over = true
    this.ended()
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    socket.once('close', () => this.#end())
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#end()
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#end()
    this.next.onResponseError?.(controller, error)
  }
}
