import type { PeakEwma } from '../balancing/peak-ewma.ts'
import { ewmaOf } from '../balancing/peak-ewma.ts'
import { balanceOptions } from '../balancing/policy.ts'
import type { MeshConcern } from '../concern.ts'
import type { Call } from '../core/call.ts'
import { classify } from '../core/errors.ts'
import type { Layer } from '../core/layer.ts'
import type { Outcome } from '../core/outcome.ts'
import { OutcomeHandler } from '../core/outcome.ts'
import type { DispatchHandler, Endpoint, MeshPolicy } from '../core/types.ts'

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

/**
 * Adds the latency of one attempt, from the end of the request to the response's headers, to its instance's average.
 */
class LatencyHandler extends OutcomeHandler {
  readonly #endpoint: Endpoint
  readonly #ewma: PeakEwma
  readonly #policy: MeshPolicy

  constructor(
    next: DispatchHandler,
    endpoint: Endpoint,
    call: Call,
    ewma: PeakEwma,
    policy: MeshPolicy,
    now: () => number
  ) {
    super(next, call, now(), now, policy.timeout)
    this.#endpoint = endpoint
    this.#ewma = ewma
    this.#policy = policy
  }

  protected override ended(outcome: Outcome, latencyMs: number, nowMs: number, error: Error | null): void {
    const ewma = this.#ewma
    if (outcome === 'success') this.#endpoint.latencyMs = ewma.observe(latencyMs, nowMs)
    else if (outcome !== 'none') {
      const { attemptTimeout, timeout } = this.#policy
      this.#endpoint.latencyMs = ewma.fail(latencyMs, attemptTimeout ?? timeout, nowMs)
    } else if (classify(error!, false) !== 'local' && latencyMs > (ewma.valueAt(nowMs) ?? 0)) {
      // The caller disconnected: the latency is at least this long.
      this.#endpoint.latencyMs = ewma.observe(latencyMs, nowMs)
    }
  }
}

export default { name: 'latency', layer: latency } satisfies MeshConcern
