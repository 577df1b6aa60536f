import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Timer, Timers } from '../../../clock.ts'
import { systemTimers } from '../../../clock.ts'
import type { MeshConcern } from '../../concern.ts'
import type { Call } from '../../core/call.ts'
import { classify } from '../../core/errors.ts'
import { DiscardingHandler } from '../../core/handlers/discarding-handler.ts'
import type { Layer } from '../../core/layer.ts'
import { idempotency } from '../../core/repeating/idempotency.ts'
import type { Repeats } from '../../core/repeating/repeats.ts'
import { isReplayable } from '../../core/repeating/replay-body.ts'
import { RetryLimit } from '../../core/repeating/retry-limit.ts'
import type { Service } from '../../core/service.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions, MeshDeps } from '../../core/types.ts'
import type { RetryOptions } from './options.ts'
import { retryKey } from './options.ts'
import type { NextAttempt } from './retry-after.ts'
import { nextAttempt, noteRetryAfter } from './retry-after.ts'
import type { RetryRules } from './rules.ts'
import { retryRules } from './rules.ts'

/**
 * Retries a failed attempt at another instance: only before any part of a response has gone to the caller, only
 * requests that can be sent twice, only within the service's retry budget. Refusals by the gateway are not retried. The
 * last response is passed on, whatever its status.
 */
export const retry: Layer = (service, policy, deps) => {
  const options = policy.retry
  if (options === false) return null
  const rules = retryRules(options)
  const limit = RetryLimit.of(service)
  const counter = deps.meter?.counter({
    name: 'jingwei_mesh_retries_total',
    help: 'Retries, by the failure that caused them.',
    labelNames: ['service', 'reason']
  })
  const count = (reason: string, by = 1) => counter?.labels(service.name, reason).inc(by)
  // The series exist from the start, else rate() misses their first step.
  for (const reason of rules.reasons) count(reason, 0)
  const { now, random, timers = systemTimers } = deps
  const { timeout: timeoutMs, subset = '' } = policy
  const context = { service, subset, limit, options, rules, count, timeoutMs, now, random, timers }
  return (dispatch) => (opts, handler) => {
    limit.call(opts.call!.startedMs)
    return dispatch(opts, new RetryHandler(handler, opts, dispatch, context, 0))
  }
}

interface Context {
  service: Service
  subset: string
  limit: RetryLimit
  options: RetryOptions
  rules: RetryRules
  count: (reason: string) => void
  timeoutMs: number
  now: MeshDeps['now']
  timers: Timers
  random: MeshDeps['random']
}

/** Handler of one attempt. Each retry has its own, so that the rest of an earlier response cannot reach it. */
class RetryHandler extends DiscardingHandler {
  readonly #opts: DispatchOptions
  readonly #call: Call
  readonly #dispatch: Dispatch
  readonly #context: Context
  readonly #retries: number
  /** The request may be on the wire, and its streamed body partly read. */
  #sent = false
  #passedOn = false
  /** Counted among the retries in flight. */
  #counted: boolean

  constructor(next: DispatchHandler, opts: DispatchOptions, dispatch: Dispatch, context: Context, retries: number) {
    super(next)
    this.#opts = opts
    this.#call = opts.call!
    this.#dispatch = dispatch
    this.#context = context
    this.#retries = retries
    this.#counted = retries > 0
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#sent = true
    this.next.onRequestStart?.(controller, context)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#passedOn = true
    this.#release()
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) {
      const { rules, now } = this.#context
      const reason = rules.responseReason(status, headers)
      if (reason !== null && this.#possible() && rules.idempotent(this.#opts)) {
        noteRetryAfter(this.#call, headers['retry-after'], now())
        const next = this.#next()
        if (next !== null && this.#allowed()) {
          this.#call.detachSource()
          this.discard(controller)
          this.#schedule(reason, next)
          return
        }
      }
      this.#passedOn = true
    }
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#release()
    super.onResponseEnd(controller, trailers)
  }

  protected override failed(controller: DispatchController, error: Error): void {
    const failure = classify(error, this.#sent)
    const { rules } = this.#context
    // An unsent request may be retried whatever its method; it caused no load, so it does not count towards the budget.
    const unsent = failure === 'refused-stream' || (!this.#sent && failure !== 'other')
    const wanted = !this.#passedOn && rules.failures.has(failure) && (unsent || rules.idempotent(this.#opts))
    const next = wanted && this.#possible(failure === 'connect-failure') ? this.#next() : null
    if (next !== null && this.#allowed(unsent)) this.#schedule(failure, next)
    else {
      this.#release()
      this.next.onResponseError?.(controller, error)
    }
  }

  /** Removes the attempt from the retries in flight. */
  #release(): void {
    if (this.#counted) this.#context.limit.release()
    this.#counted = false
  }

  #possible(unbegun = false): boolean {
    const { aborted, over } = this.#call
    if (aborted || over || this.#retries >= this.#context.options.attempts) return false
    return isReplayable(this.#opts.body, unbegun)
  }

  /** Returns the next attempt; null if `Retry-After` exceeds `backoff.max` or the call's remaining time. */
  #next(): NextAttempt | null {
    const { service, subset, options, timeoutMs, now } = this.#context
    const nowMs = now()
    const next = nextAttempt(this.#call, service, subset, nowMs)
    if (next.waitMs === 0) return next
    const leftMs = this.#call.startedMs + timeoutMs - nowMs
    return next.waitMs <= options.backoff.max && next.waitMs < leftMs ? next : null
  }

  #allowed(free = false): boolean {
    const { options, limit } = this.#context
    if (!limit.take(free ? null : options.budget, this.#counted)) return false
    // The limit now counts the retry in place of this attempt.
    this.#counted = false
    return true
  }

  #schedule(reason: string, { waitMs, tried }: NextAttempt): void {
    const { options, random, timers, count } = this.#context
    const call = this.#call
    call.tried = tried
    // Exponential, with full jitter.
    const pauseMs = Math.min(options.backoff.max, options.backoff.base * 2 ** this.#retries) * random()
    count(reason)
    // The final retry opens a new connection, so that a stale pooled one cannot fail it.
    const last = this.#retries + 1 >= options.attempts
    const opts = { ...this.#opts, fresh: reason !== 'reset' ? undefined : last || call.selected?.endpoint }
    const next = new RetryHandler(this.next, opts, this.#dispatch, this.#context, this.#retries + 1)
    let pause: Timer | null = timers.setTimeout(() => {
      pause = null
      this.#dispatch(opts, next)
    }, waitMs + pauseMs)
    call.whenOver(() => {
      if (pause === null) {
        next.#release()
        return
      }
      timers.clearTimeout(pause)
      // The retry was never dispatched, so no layer below reports its end to the layers that count attempts in flight.
      next.onResponseError(call, call.reason ?? new Error('the call is over'))
    })
  }
}

const repeats: Repeats = ({ retry }) =>
  retry ? { maxBody: retry.maxBody, mayRepeat: idempotency(retry), budget: retry.budget } : null

export default { name: 'retry', keys: [retryKey], layer: retry, repeats } satisfies MeshConcern
