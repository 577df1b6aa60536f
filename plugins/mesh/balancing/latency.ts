import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { blame } from '../core/blame.ts'
import type { Call } from '../core/call.ts'
import { classify } from '../core/errors.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler, Endpoint, MeshPolicy, Surroundings } from '../core/types.ts'
import { balanceOptions } from './options.ts'

/**
 * Finagle's peak EWMA: an average that fades with time rather than with each measurement, and that a slower answer
 * replaces at once. Unasked it fades to nothing, so that an instance that was slow is tried again.
 */
export class PeakEwma {
  readonly #decayMs: number
  #value: number | null = null
  /** Time at which an attempt was last sent to the instance. */
  askedMs = Number.NEGATIVE_INFINITY
  /** The last attempt has failed. */
  failing = false
  #atMs = 0

  constructor(decayMs: number) {
    this.#decayMs = decayMs
  }

  /** Milliseconds; null while nothing was measured. */
  valueAt(nowMs: number): number | null {
    return this.#value === null ? null : this.#value * this.#fade(nowMs)
  }

  observe(elapsedMs: number, nowMs: number): number {
    this.failing = false
    const before = this.valueAt(nowMs)
    if (before === null || elapsedMs > before) return this.#set(elapsedMs, nowMs)
    return this.#set(before + elapsedMs * (1 - this.#fade(nowMs)), nowMs)
  }

  /**
   * A failure counts as an answer that took `worstMs`, by its share of the answers: so one does not banish an
   * instance, and to fail fast is not to be fast.
   */
  fail(elapsedMs: number, worstMs: number, nowMs: number): number {
    this.failing = true
    const before = this.valueAt(nowMs)
    if (before === null) return this.#set(worstMs, nowMs)
    return this.#set(Math.max(elapsedMs, before + worstMs * (1 - this.#fade(nowMs))), nowMs)
  }

  #set(value: number, nowMs: number): number {
    this.#value = value
    this.#atMs = nowMs
    return value
  }

  #fade(nowMs: number): number {
    return Math.exp((this.#atMs - nowMs) / this.#decayMs)
  }
}

/** By address, so that a new snapshot keeps what was measured; the policy has one configuration per service. */
const ewmas = new WeakMap<Endpoint, PeakEwma>()

export function ewmaOf(endpoint: Endpoint, decayMs: number): PeakEwma {
  let ewma = ewmas.get(endpoint)
  if (ewma === undefined) {
    ewma = new PeakEwma(decayMs)
    ewmas.set(endpoint, ewma)
  }
  return ewma
}

/** Wraps the handler of an attempt to time it; null unless the policy asks for latencies. */
export function latencyMeter(
  policy: MeshPolicy,
  { now }: Pick<Surroundings, 'now'>
): ((next: DispatchHandler, endpoint: Endpoint, call: Call) => DispatchHandler) | null {
  const options = balanceOptions(policy.balance)
  if (options.policy !== 'peak-ewma') return null
  return (next, endpoint, call) =>
    new LatencyHandler(next, endpoint, call, ewmaOf(endpoint, options.decay), policy, now)
}

/** Times one attempt, from the end of the request to the response's headers. */
class LatencyHandler extends ForwardingHandler {
  readonly #endpoint: Endpoint
  readonly #call: Call
  readonly #ewma: PeakEwma
  readonly #policy: MeshPolicy
  readonly #now: () => number
  /** Start of the attempt, or of the rest of it, less the time that its call had spent in queues of ours by then. */
  #fromMs: number
  #measured = false

  constructor(
    next: DispatchHandler,
    endpoint: Endpoint,
    call: Call,
    ewma: PeakEwma,
    policy: MeshPolicy,
    now: () => number
  ) {
    super(next)
    this.#endpoint = endpoint
    this.#call = call
    this.#ewma = ewma
    this.#policy = policy
    this.#now = now
    this.#fromMs = now() - call.waitedMs
  }

  // A long upload is not a slow answer.
  override onBodySent(chunk: Buffer): void {
    this.#fromMs = this.#now() - this.#call.waitedMs
    this.next.onBodySent?.(chunk)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#measure(false)
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#measure(status >= 500)
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error & { code?: string }): void {
    const nowMs = this.#now()
    const elapsedMs = nowMs - this.#fromMs - this.#call.waitedMs
    if (blame(error, this.#call, elapsedMs, this.#policy.timeout) !== null) this.#measure(true)
    // Who leaves has waited at least so long.
    else if (classify(error, false) !== 'local' && elapsedMs > (this.#ewma.valueAt(nowMs) ?? 0)) this.#measure(false)
    this.next.onResponseError?.(controller, error)
  }

  #measure(failed: boolean): void {
    if (this.#measured) return
    this.#measured = true
    const nowMs = this.#now()
    const elapsedMs = nowMs - this.#fromMs - this.#call.waitedMs
    this.#endpoint.latencyMs = failed
      ? this.#ewma.fail(elapsedMs, this.#policy.attemptTimeout ?? this.#policy.timeout, nowMs)
      : this.#ewma.observe(elapsedMs, nowMs)
  }
}
