import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { ForwardingHandler } from './handler.ts'
import type { Service } from './service.ts'
import type { CallRecord, DispatchController, DispatchHandler, Instance } from './types.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions {
      /** Set by the mesh; an interceptor reads here how the call stands. */
      call?: Call
    }
  }
}

/**
 * One call, over all its attempts: what the interceptors know of it, and the one stable controller that the
 * caller holds. undici hands out a controller only once an attempt has a connection; a caller who leaves
 * earlier (queued, connecting, between two attempts) aborts here and hears back at once.
 */
export class Call extends ForwardingHandler implements CallRecord, DispatchController {
  attempts = 0
  selected: Instance | null = null
  /** Instances that failed this call, so that a retry goes elsewhere; null until the first retry. */
  tried: Set<Instance> | null = null
  /** The pause before the next attempt. */
  backoff: NodeJS.Timeout | undefined
  /** Whether this call holds a place in the service's retry budget. */
  retrying = false

  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: DispatchController['rawHeaders']
  rawTrailers: DispatchController['rawTrailers']

  readonly #service: Service
  #attempt: DispatchController | null = null
  #over = false

  constructor(service: Service, next: DispatchHandler) {
    super(next)
    this.#service = service
    service.active++
    next.onRequestStart?.(this, { call: this })
  }

  get service(): string {
    return this.#service.name
  }

  get instance(): string | null {
    return this.selected === null ? null : this.selected.origin
  }

  abort(reason: Error): void {
    if (this.aborted || this.#over) return
    this.aborted = true
    this.reason = reason
    this.#attempt?.abort(reason)
    // No attempt has a connection: nobody else would report it.
    this.onResponseError(this, reason)
  }

  pause(): void {
    this.paused = true
    this.#attempt?.pause()
  }

  resume(): void {
    this.paused = false
    this.#attempt?.resume()
  }

  override onRequestStart(controller: DispatchController): void {
    if (this.#over) controller.abort(this.reason ?? new Error('the call is over'))
    else this.#attempt = controller
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#finish()
    this.rawHeaders = controller.rawHeaders
    this.next.onRequestUpgrade?.(this, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    this.rawHeaders = controller.rawHeaders
    this.next.onResponseStart?.(this, status, headers, text)
  }

  override onResponseData(_controller: DispatchController, chunk: Buffer): void {
    this.next.onResponseData?.(this, chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#finish()
    this.rawTrailers = controller.rawTrailers
    this.next.onResponseEnd?.(this, trailers)
  }

  override onResponseError(_controller: DispatchController, error: Error): void {
    if (this.#over) return
    this.#finish()
    this.next.onResponseError?.(this, error)
  }

  #finish(): void {
    this.#over = true
    clearTimeout(this.backoff)
    this.#service.active--
    if (this.retrying) this.#service.retrying--
  }
}
