import type { EventEmitter } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import type { CallRecord } from '../../seam.ts'
import { StableHandler } from './handlers/stable-handler.ts'
import type {
  Dispatch, DispatchController, DispatchHandler, DispatchOptions, Endpoint, Instance
} from './types.ts' // biome-ignore format: a list

/** The service of a call, with its list of calls in flight. */
export interface CallHost {
  readonly name: string
  enter(call: Call): void
  leave(call: Call): void
  /** Logs an error that the caller's handler threw when the call ended. */
  report(error: Error, requestId: string | undefined): void
}

/**
 * One call with all its attempts: the record that interceptors read, and the controller that the caller holds. Each
 * hedged attempt has a `Call` of its own, so that the layers below can end with the attempt.
 */
export class Call extends StableHandler implements CallRecord {
  attempts = 0
  selected: Instance | null = null
  /** Name of the concern that responds in place of an instance, such as `fault`; null if an instance responds. */
  substitute: string | null = null
  readonly substituteKind = null
  /** True if part of the request may have reached an instance. */
  sent = false
  /** Addresses that failed this call, so that a retry goes elsewhere; null until the first retry. */
  tried: Set<Endpoint> | null = null
  /** Time until which each instance asked for no retry (`Retry-After`), on the mesh's clock; null if none did. */
  retryAfter: Map<Endpoint, number> | null = null
  /** Hash by which a hashing balancer chooses; null if nothing is hashed. */
  hash: number | null = null
  /** Milliseconds that the attempts spent in queues of the gateway. */
  waitedMs = 0
  /** Neighbours in the service's list of calls in flight. */
  newer: Call | null = null
  older: Call | null = null
  readonly startedMs: number
  readonly #service: CallHost
  #entered = false
  #requestId: string | undefined
  #whenOver: (() => void)[] | null = null

  constructor(service: CallHost, next: DispatchHandler, startedMs: number) {
    super(next)
    this.#service = service
    this.startedMs = startedMs
  }

  /** Passes the controller to the caller, then makes the first attempt, unless the caller has aborted by then. */
  begin(dispatch: Dispatch, opts: DispatchOptions): boolean {
    this.#entered = true
    this.#requestId = opts.caller?.id
    this.#service.enter(this)
    const { body } = opts
    // The body may fail at any time, also while the call is queued and nothing reads it. No instance is at fault then.
    if (typeof body === 'object' && body !== null && 'once' in body) {
      ;(body as EventEmitter).once('error', (error: Error) => this.abort(error))
    }
    try {
      this.next.onRequestStart?.(this, { call: this })
      if (!this.over) return dispatch(opts, this)
    } catch (error) {
      this.abort(error as Error)
    }
    return true
  }

  /** Number of attempts that the whole call has started. */
  get started(): number {
    return this.attempts
  }

  get service(): string {
    return this.#service.name
  }

  get instance(): string | null {
    return this.selected === null ? null : this.selected.origin
  }

  /** Records the start of an attempt at this instance. */
  attempt(instance: Instance): void {
    this.attempts++
    this.selected = instance
    this.substitute = null
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.sent = true
    super.onRequestStart(controller, context)
  }

  /** Contains errors of the layers above, because this runs in timers, sockets and loops over many calls. */
  override onResponseError(controller: DispatchController, error: Error): void {
    try {
      super.onResponseError(controller, error)
    } catch (thrown) {
      this.#service.report(thrown as Error, this.#requestId)
    }
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    try {
      super.onResponseEnd(controller, trailers)
    } catch (thrown) {
      this.#service.report(thrown as Error, this.#requestId)
    }
  }

  /**
   * Registers a callback for the end of the call, such as to leave a queue. Called once, at once if the call is over.
   */
  whenOver(end: () => void): void {
    if (this.over) end()
    else if (this.#whenOver === null) this.#whenOver = [end]
    else this.#whenOver.push(end)
  }

  protected override finish(): void {
    super.finish()
    if (this.#entered) this.#service.leave(this)
    if (this.#whenOver !== null) for (const end of this.#whenOver) end()
  }
}
