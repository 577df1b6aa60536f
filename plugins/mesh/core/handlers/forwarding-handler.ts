import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { isBorrowing } from '../../http/borrowing.ts'
import type { DispatchController, DispatchHandler } from '../types.ts'

/**
 * Passes every event on; handlers of interceptors extend it and override the methods they need. undici's
 * `DecoratorHandler` does the same, but is deprecated and has no methods in its types.
 */
export class ForwardingHandler implements DispatchHandler {
  // `declare`, because field definitions on objects of many shapes are slow.
  declare protected readonly next: DispatchHandler
  declare borrows: DispatchHandler['borrows']

  constructor(next: DispatchHandler) {
    this.next = next
    this.borrows = isBorrowing(next) ? ForwardingHandler.prototype.onResponseData : undefined
  }

  onRequestStart(controller: DispatchController, context: unknown): void {
    this.next.onRequestStart?.(controller, context)
  }

  onBodySent(chunk: Buffer): void {
    this.next.onBodySent?.(chunk)
  }

  onRequestSent(): void {
    this.next.onRequestSent?.()
  }

  onRequestUpgrade(controller: DispatchController, status: number, headers: IncomingHttpHeaders, socket: Duplex): void {
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  onResponseStart(controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  onResponseData(controller: DispatchController, chunk: Buffer): void {
    this.next.onResponseData?.(controller, chunk)
  }

  onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.next.onResponseEnd?.(controller, trailers)
  }

  onResponseError(controller: DispatchController, error: Error): void {
    this.next.onResponseError?.(controller, error)
  }
}
