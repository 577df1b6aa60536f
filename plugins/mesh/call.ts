import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { ForwardingHandler } from './handler.ts'
import type { Service } from './service.ts'
import type {
  CallRecord, Dispatch, DispatchController, DispatchHandler, DispatchOptions, Endpoint, Instance
} from './types.ts' // biome-ignore format: a list

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
  /** Addresses that failed this call, so that a retry goes elsewhere; null until the first retry. */
  tried: Set<Endpoint> | null = null
  /** By which a hashing balancer chooses; null where nothing is hashed. */
  hash: number | null = null
  /** Neighbours in the service's list of calls in flight. */
  newer: Call | null = null
  older: Call | null = null
  /** Answered, failed or aborted: what still comes of an attempt is nobody's. */
  over = false
  readonly startedMs: number

  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: DispatchController['rawHeaders']
  rawTrailers: DispatchController['rawTrailers']

  readonly #service: Service
  #attempt: DispatchController | null = null
  #whenOver: (() => void)[] | null = null

  constructor(service: Service, next: DispatchHandler, startedMs: number) {
    super(next)
    this.#service = service
    this.startedMs = startedMs
  }

  /** Hands the caller its controller, then makes the first attempt, unless the caller has aborted by now. */
  begin(dispatch: Dispatch, opts: DispatchOptions): boolean {
    this.#service.enter(this)
    try {
      this.next.onRequestStart?.(this, { call: this })
      if (!this.over) return dispatch(opts, this)
    } catch (error) {
      this.abort(error as Error)
    }
    return true
  }

  get service(): string {
    return this.#service.name
  }

  get instance(): string | null {
    return this.selected === null ? null : this.selected.origin
  }

  abort(reason: Error): void {
    if (this.over) return
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

  /** The attempt has failed and another will follow: from here on its controller moves nothing of the caller's. */
  letGo(): void {
    this.#attempt = null
  }

  override onRequestStart(controller: DispatchController): void {
    if (this.over) {
      controller.abort(this.reason ?? new Error('the call is over'))
      return
    }
    this.#attempt = controller
    if (this.paused) controller.pause()
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    if (this.over) {
      socket.destroy()
      return
    }
    this.rawHeaders = controller.rawHeaders
    this.next.onRequestUpgrade?.(this, status, headers, socket)
    // Unless the caller does not want it.
    if (!this.over) this.#finish()
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (this.over) return
    this.rawHeaders = controller.rawHeaders
    this.next.onResponseStart?.(this, status, headers, text)
  }

  override onResponseData(_controller: DispatchController, chunk: Buffer): void {
    if (!this.over) this.next.onResponseData?.(this, chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.over) return
    this.#finish()
    this.rawTrailers = controller.rawTrailers
    this.next.onResponseEnd?.(this, trailers)
  }

  override onResponseError(_controller: DispatchController, error: Error): void {
    if (this.over) return
    this.#finish()
    this.next.onResponseError?.(this, error)
  }

  /** Something to end with the call: a pause, a place in a queue. Called once, also if it has come to nothing by then. */
  whenOver(end: () => void): void {
    if (this.over) end()
    else if (this.#whenOver === null) this.#whenOver = [end]
    else this.#whenOver.push(end)
  }

  #finish(): void {
    this.over = true
    this.#service.leave(this)
    if (this.#whenOver !== null) for (const end of this.#whenOver) end()
  }
}
