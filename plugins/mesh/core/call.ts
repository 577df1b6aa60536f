import type { EventEmitter } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import type { CallRecord } from '../../seam.ts'
import { StableHandler } from './handlers/stable-handler.ts'
import type {
  Dispatch, DispatchController, DispatchHandler, DispatchOptions, Endpoint, Instance
} from './types.ts' // biome-ignore format: a list

/** The service of a call, which keeps a list of its calls in flight. */
export interface CallHost {
  readonly name: string
  enter(call: Call): void
  leave(call: Call): void
  /** Logs an error that the caller's handler threw when the call ended. */
  report(error: Error, requestId: string | undefined): void
}

/**
 * One call, over all its attempts: what the interceptors know of it, and the controller that the caller holds. Each leg
 * of a hedged attempt has one of its own, so that what is below can end with the leg.
 */
export class Call extends StableHandler implements CallRecord {
  attempts = 0
  selected: Instance | null = null
  /** Set by a layer that responds in place of the instance of the last attempt. */
  substitute: string | null = null
  readonly substituteKind = null
  /** Some of the request may have reached an instance. */
  sent = false
  /** Addresses that failed this call, so that a retry goes elsewhere; null until the first retry. */
  tried: Set<Endpoint> | null = null
  /** Until when instances have asked not to be asked again (`Retry-After`), on the mesh's clock; null while none has. */
  retryAfter: Map<Endpoint, number> | null = null
  /** By which a hashing balancer chooses; null where nothing is hashed. */
  hash: number | null = null
  /** Time that its attempts spent in queues of ours. */
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

  /** Hands the caller its controller, then makes the first attempt, unless the caller has aborted by now. */
  begin(dispatch: Dispatch, opts: DispatchOptions): boolean {
    this.#entered = true
    this.#requestId = opts.caller?.id
    this.#service.enter(this)
    const { body } = opts
    // It may break off at any time, also in a queue of ours, where nobody reads it: an end that nobody is to blame for.
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

  get service(): string {
    return this.#service.name
  }

  get instance(): string | null {
    return this.selected === null ? null : this.selected.origin
  }

  /** Another attempt begins, at this instance. */
  attempt(instance: Instance): void {
    this.attempts++
    this.selected = instance
    this.substitute = null
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.sent = true
    super.onRequestStart(controller, context)
  }

  /** Contains what the layers above throw: this is called from timers, sockets and loops over many calls. */
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

  /** Something to end with the call: a pause, a place in a queue. Called once, also if it has come to nothing by then. */
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
