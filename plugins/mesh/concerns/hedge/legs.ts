import type { IncomingHttpHeaders } from 'node:http'
import type { Timer, Timers } from '../../../clock.ts'
import { Call } from '../../core/call.ts'
import { AttemptUnneeded, classify } from '../../core/errors.ts'
import { ForwardingHandler } from '../../core/handlers/forwarding-handler.ts'
import { isWhole } from '../../core/repeating/replay-body.ts'
import type { RetryLimit } from '../../core/repeating/retry-limit.ts'
import type { Service } from '../../core/service.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions, Instance } from '../../core/types.ts'
import type { Latencies } from './latencies.ts'

/** A failing answer that waits for what the other legs bring. */
interface Held {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string | undefined
  /** Of one that came although it was paused, as one of ours may. */
  readonly chunks: Buffer[]
  trailers: IncomingHttpHeaders | null
}

/** One of the attempts side by side: to those below a call of its own, that ends when it has lost. */
class Leg extends Call {
  held: Held | null = null
  /** Counts among the retries in flight. */
  counted: boolean
  readonly #whole: Call
  readonly #hedge: Hedge

  constructor(service: Service, hedge: Hedge, whole: Call, startedMs: number, counted: boolean) {
    super(service, hedge, startedMs)
    this.#whole = whole
    this.#hedge = hedge
    this.tried = whole.tried
    this.hash = whole.hash
    this.counted = counted
  }

  override attempt(instance: Instance): void {
    super.attempt(instance)
    this.#whole.attempt(instance)
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    super.onRequestStart(controller, context)
    if (!this.over) this.next.onRequestStart?.(this, context)
  }

  override onBodySent(chunk: Buffer): void {
    this.#hedge.bodySent(this, chunk)
  }

  override onRequestSent(): void {
    this.#hedge.requestSent(this)
  }
}

export interface HedgeContext {
  readonly service: Service
  readonly subset: string
  /** Besides the first. */
  readonly attempts: number
  readonly afterMs: () => number | null
  readonly latencies: Latencies
  readonly limit: RetryLimit
  readonly share: number
  readonly count: (won: boolean) => void
  readonly now: () => number
  readonly timers: Timers
}

/**
 * Attempts side by side, which to those above are one. In the events of the legs, the controller is the leg. The first
 * answer wins; a failure, or a 5xx, waits while another leg is out.
 */
export class Hedge extends ForwardingHandler implements DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  readonly #opts: DispatchOptions
  readonly #call: Call
  readonly #dispatch: Dispatch
  readonly #context: HedgeContext
  readonly #legs: Leg[] = []
  /** The first under way. */
  #first: DispatchController | null = null
  #winner: Leg | null = null
  #settled = false
  #failure: (Error & { code?: string }) | null = null
  #timer: Timer | undefined

  constructor(next: DispatchHandler, opts: DispatchOptions, dispatch: Dispatch, context: HedgeContext) {
    super(next)
    this.#opts = opts
    this.#call = opts.call!
    this.#dispatch = dispatch
    this.#context = context
  }

  begin(): boolean {
    const call = this.#call
    call.whenOver(() => {
      if (!this.#settled) this.abort(call.reason ?? new Error('the call is over'))
    })
    if (this.#settled) return true
    this.#start(false)
    this.#arm()
    return true
  }

  #start(counted: boolean): void {
    const leg = new Leg(this.#context.service, this, this.#call, this.#context.now(), counted)
    this.#legs.push(leg)
    if (this.paused) leg.pause()
    try {
      this.#dispatch({ ...this.#opts, call: leg }, leg)
    } catch (error) {
      leg.onResponseError(leg, error as Error)
    }
  }

  #arm(): void {
    if (this.#settled || this.#legs.length > this.#context.attempts) return
    const afterMs = this.#context.afterMs()
    if (afterMs !== null) this.#timer = this.#context.timers.setTimeout(() => this.#hedge(), afterMs)
  }

  #hedge(): void {
    const { service, subset, limit, share } = this.#context
    const call = this.#call
    const tried = new Set(call.tried)
    for (const leg of this.#legs) {
      // It waits in a queue of ours: that is no instance's slowness.
      if (leg.selected === null) return
      tried.add(leg.selected.endpoint)
    }
    // Twice to the only instance would but add to its load.
    const another = service.snapshot?.balancers[subset]?.pick(tried, call.hash) ?? null
    if (another === null || !isWhole(this.#opts.body) || !limit.take(share)) return
    call.tried = tried
    this.#start(true)
    this.#arm()
  }

  get awaitsBody(): boolean {
    return this.#first?.awaitsBody ?? false
  }

  abort(reason: Error): void {
    this.aborted = true
    this.reason = reason
    if (this.#winner !== null) this.#winner.abort(reason)
    else if (!this.#settled) {
      this.#settle(null, reason)
      this.next.onResponseError?.(this, reason)
    }
  }

  pause(): void {
    this.paused = true
    for (const leg of this.#running()) leg.pause()
  }

  resume(): void {
    this.paused = false
    for (const leg of this.#running()) if (leg.held === null) leg.resume()
  }

  #running(): readonly Leg[] {
    return this.#winner === null ? this.#legs : [this.#winner]
  }

  /** From here on only the winner is heard, if there is one. */
  #settle(winner: Leg | null, reason: Error): void {
    const { count, latencies, now } = this.#context
    this.#settled = true
    this.#winner = winner
    this.#context.timers.clearTimeout(this.#timer)
    for (const [index, leg] of this.#legs.entries()) {
      if (index > 0) count(leg === winner)
      if (leg === winner || leg.over) continue
      // It took at least this long; without it, hedging would make the service look ever faster.
      if (winner !== null && leg.held === null) latencies.add(now() - leg.startedMs)
      leg.abort(reason)
    }
    const call = this.#call
    // There is none where the call was over before the first.
    call.waitedMs += (winner ?? this.#legs[0])?.waitedMs ?? 0
    if (winner === null) return
    call.selected = winner.selected
    call.substitute = winner.substitute
  }

  #others(leg: Leg): boolean {
    return this.#legs.some((other) => other !== leg && !other.over && other.held === null)
  }

  override onRequestStart(leg: DispatchController, context: unknown): void {
    if (this.#settled || this.#first !== null) return
    this.#first = leg
    this.next.onRequestStart?.(this, context)
  }

  /** Those above see one attempt, which sends its body once. */
  bodySent(leg: DispatchController, chunk: Buffer): void {
    if (leg === this.#first) this.next.onBodySent?.(chunk)
  }

  requestSent(leg: DispatchController): void {
    if (leg === this.#first) this.next.onRequestSent?.()
  }

  override onResponseStart(leg: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    if (!(leg instanceof Leg) || this.#settled) return
    if (status >= 200) {
      const { latencies, now } = this.#context
      latencies.add(now() - leg.startedMs - leg.waitedMs)
      if (status >= 500 && this.#others(leg)) {
        leg.held = { status, headers, text, chunks: [], trailers: null }
        leg.pause()
        return
      }
      this.#settle(leg, new AttemptUnneeded())
    }
    this.next.onResponseStart?.(leg, status, headers, text)
  }

  override onResponseData(leg: DispatchController, chunk: Buffer): void {
    if (leg === this.#winner) this.next.onResponseData?.(leg, chunk)
    else if (leg instanceof Leg) leg.held?.chunks.push(chunk)
  }

  override onResponseEnd(leg: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#release(leg)
    if (leg === this.#winner) this.next.onResponseEnd?.(leg, trailers)
    else if (leg instanceof Leg && leg.held !== null) leg.held.trailers = trailers ?? {}
  }

  override onResponseError(leg: DispatchController, error: Error & { code?: string }): void {
    this.#release(leg)
    if (leg === this.#winner) this.next.onResponseError?.(leg, error)
    if (!(leg instanceof Leg) || this.#settled) return
    leg.held = null
    // A refusal or a fault of our own says less to the caller than how an instance failed.
    const kind = classify(error, false)
    if (this.#failure === null || (kind !== 'other' && kind !== 'local')) this.#failure = error
    if (!this.#others(leg)) this.#conclude(leg)
  }

  #release(leg: DispatchController): void {
    if (!(leg instanceof Leg) || !leg.counted) return
    leg.counted = false
    this.#context.limit.release()
  }

  /** All have failed: the last answer, if there is one, else the failure. */
  #conclude(last: Leg): void {
    const answered = this.#legs.findLast(({ held }) => held !== null) ?? null
    this.#settle(answered, new AttemptUnneeded())
    if (answered === null) this.next.onResponseError?.(last, this.#failure!)
    else this.#passOn(answered, answered.held!)
  }

  #passOn(leg: Leg, { status, headers, text, chunks, trailers }: Held): void {
    leg.held = null
    try {
      this.next.onResponseStart?.(leg, status, headers, text)
      for (const chunk of chunks) this.next.onResponseData?.(leg, chunk)
      if (trailers !== null) this.next.onResponseEnd?.(leg, trailers)
      else if (!this.paused) leg.resume()
    } catch (error) {
      // As undici would have done, had it called.
      if (leg.over) this.next.onResponseError?.(leg, error as Error)
      else leg.abort(error as Error)
    }
  }
}
