import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { errors } from '../../undici.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'
import { isBorrowing } from './borrowing.ts'
import type { ObservedRequest } from './diagnostics.ts'
import { observed } from './diagnostics.ts'
import type { RequestHead } from './request-head.ts'
import { requestHead } from './request-head.ts'
import type { ResponseHead } from './response-head.ts'

/** View of the connection for the request in progress. */
export interface Carrier {
  abort(reason: Error): void
  resume(): void
  readonly awaitsBody: boolean
}

/** One request from the queue to the end of its response, and the controller that its handler holds. */
export class PooledRequest implements DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  rawHeaders: string[] | null = null
  rawTrailers: string[] | null = null
  /** Completed, failed or aborted. */
  over = false
  /** Header section of the 101 response after which the connection belongs to the handler. */
  switching: ResponseHead | null = null
  readonly method: string
  readonly requestHead: RequestHead
  readonly body: DispatchOptions['body']
  readonly upgrade: string | null
  /** The request may only be sent on a new connection. */
  readonly fresh: boolean
  /** Longest pause within the response body, in milliseconds; 0: no limit. */
  readonly bodyTimeout: number
  /** Returns the request's trailer section; called after the last chunk. */
  readonly requestTrailers: (() => readonly string[]) | null
  /** The handler accepts chunks in the connection's read buffer, without a copy. */
  readonly borrows: boolean
  /** Called when the wait for a connection ends. */
  onPlaced: (() => void) | undefined
  /** The request for subscribers of undici's diagnostics channels; null without any. */
  readonly observed: ObservedRequest | null
  readonly #handler: DispatchHandler
  #carrier: Carrier | null = null
  #trailers: IncomingHttpHeaders = {}

  /** Throws undici's `InvalidArgumentError`. */
  constructor(opts: DispatchOptions, handler: DispatchHandler, host: string) {
    const head = requestHead(opts, host)
    this.observed = observed(opts, head)
    this.requestHead = this.observed === null ? head : this.observed.extended(head)
    this.method = opts.method
    this.body = opts.body
    this.upgrade = typeof opts.upgrade === 'string' ? opts.upgrade : null
    const { fresh } = opts
    this.fresh = fresh === true || (fresh !== undefined && fresh === opts.instance?.endpoint)
    this.bodyTimeout = opts.bodyTimeout ?? 0
    this.requestTrailers = opts.trailers ?? null
    this.borrows = isBorrowing(handler)
    this.#handler = handler
  }

  /** Starts the request; returns false if the handler has aborted it, so that nothing may be sent. */
  begin(carrier: Carrier): boolean {
    this.#placed()
    try {
      this.#handler.onRequestStart?.(this, null)
    } catch (error) {
      this.fail(error as Error)
    }
    if (this.over) return false
    this.#carrier = carrier
    return true
  }

  get awaitsBody(): boolean {
    return this.#carrier?.awaitsBody ?? false
  }

  abort(reason?: Error): void {
    if (this.over) return
    this.aborted = true
    this.reason = reason ?? new errors.RequestAbortedError()
    const carrier = this.#carrier
    this.#finish()
    this.observed?.failed(this.reason)
    // Abort first, because the handler may throw.
    carrier?.abort(this.reason)
    this.#handler.onResponseError?.(this, this.reason)
  }

  pause(): void {
    // After the end, the connection may carry another request.
    if (!this.over) this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.#carrier?.resume()
  }

  fail(error: Error): void {
    if (this.over) return
    this.#finish()
    this.observed?.failed(error)
    this.#handler.onResponseError?.(this, error)
  }

  bodySent(chunk: Uint8Array): void {
    this.observed?.chunkSent(chunk)
    this.#handler.onBodySent?.(chunk as Buffer)
  }

  /** Called when the whole request body has been written. */
  requestSent(): void {
    this.observed?.bodySent()
    this.#handler.onRequestSent?.()
  }

  head({ status, headers, rawHeaders, text }: ResponseHead): void {
    this.rawHeaders = rawHeaders
    this.observed?.responded(status, rawHeaders, text)
    // A service must not set this header, which marks responses of the mesh.
    delete headers['x-jingwei-fallback']
    try {
      this.#handler.onResponseStart?.(this, status, headers, text)
    } catch (error) {
      this.abort(error as Error)
    }
  }

  data(chunk: Buffer): void {
    this.observed?.chunkReceived(chunk)
    try {
      this.#handler.onResponseData?.(this, chunk)
    } catch (error) {
      this.abort(error as Error)
    }
  }

  trailers(fields: IncomingHttpHeaders, raw: string[]): void {
    this.#trailers = fields
    this.rawTrailers = raw
  }

  end(): void {
    this.#finish()
    this.observed?.ended(this.rawTrailers ?? [])
    try {
      this.#handler.onResponseEnd?.(this, this.#trailers)
    } catch (error) {
      this.#handler.onResponseError?.(this, error as Error)
    }
  }

  upgraded({ status, headers, rawHeaders, text }: ResponseHead, socket: Duplex): void {
    this.#finish()
    this.rawHeaders = rawHeaders
    this.observed?.responded(status, rawHeaders, text)
    this.observed?.ended([])
    try {
      this.#handler.onRequestUpgrade?.(this, status, headers, socket)
    } catch (error) {
      socket.destroy()
      this.#handler.onResponseError?.(this, error as Error)
    }
  }

  #placed(): void {
    this.onPlaced?.()
    this.onPlaced = undefined
  }

  #finish(): void {
    this.#placed()
    this.over = true
    this.paused = false
    this.#carrier = null
  }
}
