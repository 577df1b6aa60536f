import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { DispatchController } from '../types.ts'
import { ForwardingHandler } from './forwarding-handler.ts'

/**
 * Calls `ended` once: when the response has ended, when it has failed, or when the socket of an upgrade has closed. An
 * upgraded connection has no end of its response, so that the handler must not count it as over before its socket is.
 */
export abstract class EndingHandler extends ForwardingHandler {
  over = false

  /** Runs before the handler above learns of the end. */
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
