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

/** A 5xx response that is held back while other attempts are in flight. */
interface Held {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string | undefined
  /** Chunks that arrived although the attempt is paused, as those of an injected response do. */
  readonly chunks: Buffer[]
  trailers: IncomingHttpHeaders | null
}

/** A concurrent attempt: to the layers below a call of its own, which ends when another one wins. */
class HedgedAttempt extends Call {
  held: Held | null = null
  /** Counted among the retries in flight. */
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

  override get started(): number {
    return this.#whole.started
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
  /** Most attempts besides the first. */
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
 * Concurrent attempts, which the layers above see as one. In their events, the controller is the attempt itself. The
 * first response wins; a failure or a 5xx is held back while another attempt is in flight.
 */
export class Hedge extends ForwardingHandler implements DispatchController {
  aborted = false
  paused = false
  reason: Error | null = null
  readonly #opts: DispatchOptions
  readonly #call: Call
  readonly #dispatch: Dispatch
  readonly #context: HedgeContext
  readonly #attempts: HedgedAttempt[] = []
  /** First attempt that was started on a connection. */
  #first: DispatchController | null = null
  #winner: HedgedAttempt | null = null
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
    const attempt = new HedgedAttempt(this.#context.service, this, this.#call, this.#context.now(), counted)
    this.#attempts.push(attempt)
    if (this.paused) attempt.pause()
    try {
      this.#dispatch({ ...this.#opts, call: attempt }, attempt)
    } catch (error) {
      attempt.onResponseError(attempt, error as Error)
    }
  }

  #arm(): void {
    if (this.#settled || this.#attempts.length > this.#context.attempts) return
    const afterMs = this.#context.afterMs()
    if (afterMs !== null) this.#timer = this.#context.timers.setTimeout(() => this.#hedge(), afterMs)
  }

  #hedge(): void {
    const { service, subset, limit, share } = this.#context
    const call = this.#call
    const tried = new Set(call.tried)
    for (const attempt of this.#attempts) {
      // The attempt is in a queue of the gateway; the instance is not slow.
      if (attempt.selected === null) return
      tried.add(attempt.selected.endpoint)
    }
    // A second attempt at the same instance would only add load.
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
    for (const attempt of this.#running()) attempt.pause()
  }

  resume(): void {
    this.paused = false
    for (const attempt of this.#running()) if (attempt.held === null) attempt.resume()
  }

  #running(): readonly HedgedAttempt[] {
    return this.#winner === null ? this.#attempts : [this.#winner]
  }

  /** Ends all attempts but the winner, if there is one; later events of others are ignored. */
  #settle(winner: HedgedAttempt | null, reason: Error): void {
    const { count, latencies, now } = this.#context
    this.#settled = true
    this.#winner = winner
    this.#context.timers.clearTimeout(this.#timer)
    for (const [index, attempt] of this.#attempts.entries()) {
      if (index > 0) count(attempt === winner)
      if (attempt === winner || attempt.over) continue
      // Add the time so far as a lower bound; without slow attempts, hedging would make the service look ever faster.
      if (winner !== null && attempt.held === null) latencies.add(now() - attempt.startedMs)
      attempt.abort(reason)
    }
    const call = this.#call
    // There is no attempt if the call was over before the first.
    call.waitedMs += (winner ?? this.#attempts[0])?.waitedMs ?? 0
    if (winner === null) return
    call.selected = winner.selected
    call.substitute = winner.substitute
  }

  #others(attempt: HedgedAttempt): boolean {
    return this.#attempts.some((other) => other !== attempt && !other.over && other.held === null)
  }

  override onRequestStart(attempt: DispatchController, context: unknown): void {
    if (this.#settled || this.#first !== null) return
    this.#first = attempt
    this.next.onRequestStart?.(this, context)
  }

  /** Passes on the event of the first attempt only: the layers above see one attempt, which sends its body once. */
  bodySent(attempt: DispatchController, chunk: Buffer): void {
    if (attempt === this.#first) this.next.onBodySent?.(chunk)
  }

  requestSent(attempt: DispatchController): void {
    if (attempt === this.#first) this.next.onRequestSent?.()
  }

  override onResponseStart(
    attempt: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (!(attempt instanceof HedgedAttempt) || this.#settled) return
    if (status >= 200) {
      const { latencies, now } = this.#context
      latencies.add(now() - attempt.startedMs - attempt.waitedMs)
      if (status >= 500 && this.#others(attempt)) {
        attempt.held = { status, headers, text, chunks: [], trailers: null }
        attempt.pause()
        return
      }
      this.#settle(attempt, new AttemptUnneeded())
    }
    this.next.onResponseStart?.(attempt, status, headers, text)
  }

  override onResponseData(attempt: DispatchController, chunk: Buffer): void {
    if (attempt === this.#winner) this.next.onResponseData?.(attempt, chunk)
    else if (attempt instanceof HedgedAttempt) attempt.held?.chunks.push(chunk)
  }

  override onResponseEnd(attempt: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#release(attempt)
    if (attempt === this.#winner) this.next.onResponseEnd?.(attempt, trailers)
    else if (attempt instanceof HedgedAttempt && attempt.held !== null) attempt.held.trailers = trailers ?? {}
  }

  override onResponseError(attempt: DispatchController, error: Error & { code?: string }): void {
    this.#release(attempt)
    if (attempt === this.#winner) this.next.onResponseError?.(attempt, error)
    if (!(attempt instanceof HedgedAttempt) || this.#settled) return
    attempt.held = null
    // The failure of an instance is more useful to the caller than a refusal or fault of the gateway.
    const kind = classify(error, false)
    if (this.#failure === null || (kind !== 'other' && kind !== 'local')) this.#failure = error
    if (!this.#others(attempt)) this.#conclude(attempt)
  }

  #release(attempt: DispatchController): void {
    if (!(attempt instanceof HedgedAttempt) || !attempt.counted) return
    attempt.counted = false
    this.#context.limit.release()
  }

  /** Ends after all attempts have failed: with the last held response if there is one, else with the failure. */
  #conclude(last: HedgedAttempt): void {
    const answered = this.#attempts.findLast(({ held }) => held !== null) ?? null
    this.#settle(answered, new AttemptUnneeded())
    if (answered === null) this.next.onResponseError?.(last, this.#failure!)
    else this.#passOn(answered, answered.held!)
  }

  #passOn(attempt: HedgedAttempt, { status, headers, text, chunks, trailers }: Held): void {
    attempt.held = null
    try {
      this.next.onResponseStart?.(attempt, status, headers, text)
      for (const chunk of chunks) this.next.onResponseData?.(attempt, chunk)
      if (trailers !== null) this.next.onResponseEnd?.(attempt, trailers)
      else if (!this.paused) attempt.resume()
    } catch (error) {
      // Abort as undici does if a handler throws.
      if (attempt.over) this.next.onResponseError?.(attempt, error as Error)
      else attempt.abort(error as Error)
    }
  }
}
