import type { MeshConcern } from '../../concern.ts'
import type { Call } from '../../core/call.ts'
import { MeshError } from '../../core/errors.ts'
import type { Layer } from '../../core/layer.ts'
import { overflowCounter, serviceGauge, shadowCounter } from '../../core/metrics.ts'
import type { Outcome } from '../../core/outcome.ts'
import { OutcomeHandler } from '../../core/outcome.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { StateKey } from '../../core/service-state.ts'
import type { DispatchHandler, MeshDeps } from '../../core/types.ts'
import { GradientLimit } from './gradient-limit.ts'
import type { AdaptiveConcurrencyOptions } from './options.ts'
import { adaptiveConcurrencyKey } from './options.ts'

const limiterKey = new StateKey<Limiter>('adaptive-concurrency')

/** Limits attempts in flight by a limit that adapts to the latency. */
export const adaptiveConcurrency: Layer = (service, { adaptiveConcurrency: options, timeout }) => {
  if (!options) return null
  const limiter = service.state(limiterKey, (deps) => new Limiter(service, options, deps))
  const shadow = options.mode === 'shadow'
  return (dispatch) => (opts, handler) => {
    if (limiter.inFlight < limiter.gradient.limit)
      return dispatch(opts, new LimiterHandler(handler, opts.call!, timeout, limiter))
    limiter.refuse()
    if (shadow) return dispatch(opts, handler)
    const error = new MeshError('JW_OVERLOADED', service.name, undefined, 'overload_adaptive')
    handler.onResponseError?.(opts.call!, error)
    return true
  }
}

class Limiter implements ServiceState {
  /** Attempts without response headers; running streams are no sign of load. */
  inFlight = 0
  readonly gradient: GradientLimit
  readonly now: () => number
  /** Counts an attempt that was refused, or would have been in shadow mode. */
  readonly refuse: () => void
  readonly close: () => void
  readonly #mode: AdaptiveConcurrencyOptions['mode']

  constructor({ name }: Service, options: AdaptiveConcurrencyOptions, { now, meter }: MeshDeps) {
    const { mode } = options
    this.#mode = mode
    this.now = now
    this.gradient = new GradientLimit(options)
    this.refuse =
      mode === 'shadow' ? shadowCounter(meter, name, 'adaptive-concurrency') : overflowCounter(meter, name, 'adaptive')
    const gauge = {
      name: 'jingwei_mesh_concurrency_limit',
      help: 'Current adaptive limit of attempts in flight.'
    }
    this.close = serviceGauge(meter, gauge, name, () => this.gradient.limit)
  }

  status() {
    const { limit, longMs, shortMs } = this.gradient
    return { mode: this.#mode, limit, inFlight: this.inFlight, latencyMs: shortMs, longTermLatencyMs: longMs }
  }
}

class LimiterHandler extends OutcomeHandler {
  readonly #limiter: Limiter

  constructor(next: DispatchHandler, call: Call, timeoutMs: number, limiter: Limiter) {
    super(next, call, limiter.now(), limiter.now, timeoutMs)
    this.#limiter = limiter
    limiter.inFlight++
  }

  protected override ended(outcome: Outcome, latencyMs: number, nowMs: number): void {
    const limiter = this.#limiter
    // The latency of an error does not show the load.
    if (outcome === 'success' || outcome === 'timeout') limiter.gradient.sample(nowMs, latencyMs, limiter.inFlight)
    limiter.inFlight--
  }
}

export default {
  name: 'adaptive-concurrency',
  keys: [adaptiveConcurrencyKey],
  layer: adaptiveConcurrency
} satisfies MeshConcern
