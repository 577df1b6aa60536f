import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { PeakEwma } from '../balancing/peak-ewma.ts'
import { ewmaOf } from '../balancing/peak-ewma.ts'
import { balanceOptions } from '../balancing/policy.ts'
import type { MeshConcern } from '../concern.ts'
import { blame } from '../core/blame.ts'
import type { Call } from '../core/call.ts'
import { classify } from '../core/errors.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer } from '../core/layer.ts'
import type { DispatchController, DispatchHandler, Endpoint, MeshPolicy } from '../core/types.ts'

/** Measures the latency of each attempt for the balancing policy `peak-ewma`. */
export const latency: Layer = (_service, policy, { now }) => {
  const options = balanceOptions(policy.balance)
  if (options.policy !== 'peak-ewma') return null
  return (dispatch) => (opts, handler) => {
    const { endpoint } = opts.instance!
    const ewma = ewmaOf(endpoint, options.decay)
    return dispatch(opts, new LatencyHandler(handler, endpoint, opts.call!, ewma, policy, now))
  }
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

export default { name: 'latency', layer: latency } satisfies MeshConcern
