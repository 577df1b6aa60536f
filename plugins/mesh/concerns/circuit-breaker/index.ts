import type { MeshConcern } from '../../concern.ts'
import type { Call } from '../../core/call.ts'
import type { CircuitBreakerOptions } from '../../core/circuit-breaker-options.ts'
import { MeshError } from '../../core/errors.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf, serviceGauge, shadowCounter } from '../../core/metrics.ts'
import type { Outcome } from '../../core/outcome.ts'
import { OutcomeHandler } from '../../core/outcome.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { StateKey } from '../../core/service-state.ts'
import type { DispatchHandler, MeshDeps } from '../../core/types.ts'
import type { CircuitState } from './circuit.ts'
import { Circuit } from './circuit.ts'

const breakerKey = new StateKey<Breaker>('circuit-breaker')

/** Refuses calls while the service fails. A call that succeeds after a retry is no failure. */
export const circuitBreaker: Layer = (service, { circuitBreaker: options, timeout }) => {
  if (!options || (options.errorRatio === false && options.slowRatio === false)) return null
  const breaker = service.state(breakerKey, (deps) => new Breaker(service, options, deps))
  const { circuit, refuse } = breaker
  const shadow = options.mode === 'shadow'
  return (dispatch) => (opts, handler) => {
    const ticket = circuit.admit()
    if (ticket >= 0) return dispatch(opts, new BreakerHandler(handler, opts.call!, timeout, breaker, ticket))
    refuse()
    if (shadow) return dispatch(opts, handler)
    const reason = circuit.state === 'half-open' ? 'circuit_half_open' : 'circuit_open'
    const error = new MeshError('JW_CIRCUIT_OPEN', service.name, circuit.retryInMs || undefined, reason)
    handler.onResponseError?.(opts.call!, error)
    return true
  }
}

const levels: Record<CircuitState, number> = { closed: 0, 'half-open': 1, open: 2 }

/** Circuit of a service, with its metrics and log lines. */
class Breaker implements ServiceState {
  readonly circuit: Circuit
  readonly slowAfterMs: number
  readonly now: () => number
  /** Counts a call that was refused, or would have been in shadow mode. */
  readonly refuse: () => void
  readonly #mode: CircuitBreakerOptions['mode']
  readonly close: () => void

  constructor({ name }: Service, options: CircuitBreakerOptions, { now, random, meter, log }: MeshDeps) {
    const { mode } = options
    this.#mode = mode
    this.slowAfterMs = options.slowAfter
    this.now = now
    const transitions = {
      name: 'jingwei_mesh_circuit_transitions_total',
      help: 'Transitions of the circuit, by the state that it changed to.'
    }
    const counts = new Map(Object.keys(levels).map((to) => [to, counterOf(meter, transitions, { service: name, to })]))
    const refusals = {
      name: 'jingwei_mesh_circuit_refusals_total',
      help: 'Calls refused because the circuit is open, or half-open without room for a probe.'
    }
    const refuse = counterOf(meter, refusals, { service: name })
    this.refuse = mode === 'shadow' ? shadowCounter(meter, name, 'circuit-breaker') : refuse
    this.circuit = new Circuit(options, now, random, (to, reason) => {
      const fields = { service: name, reason, ...(mode === 'shadow' && { mode }) }
      log[to === 'open' ? 'warn' : 'info'](fields, `circuit of ${name} is ${to}`)
      counts.get(to)!()
    })
    const gauge = {
      name: 'jingwei_mesh_circuit_state',
      help: '0 while the circuit is closed, 1 half-open, 2 open.'
    }
    this.close = serviceGauge(meter, gauge, name, () => levels[this.circuit.state])
  }

  status() {
    return { mode: this.#mode, ...this.circuit.status() }
  }
}

class BreakerHandler extends OutcomeHandler {
  readonly #breaker: Breaker
  readonly #ticket: number

  constructor(next: DispatchHandler, call: Call, timeoutMs: number, breaker: Breaker, ticket: number) {
    super(next, call, call.startedMs, breaker.now, timeoutMs)
    this.#breaker = breaker
    this.#ticket = ticket
  }

  protected override ended(outcome: Outcome, latencyMs: number, nowMs: number): void {
    const { circuit, slowAfterMs } = this.#breaker
    if (outcome === 'none') circuit.forget(this.#ticket)
    else circuit.settle(this.#ticket, outcome !== 'success', latencyMs > slowAfterMs, nowMs)
  }
}

export default { name: 'circuit-breaker', layer: circuitBreaker } satisfies MeshConcern
