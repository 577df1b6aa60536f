import type { MeshPolicy } from '../../../../config/schema.ts'
import type { MeshConcern } from '../../concern.ts'
import type { Call } from '../../core/call.ts'
import type { BreakerOptions } from '../../core/circuit-breaker-options.ts'
import { canOpen } from '../../core/circuit-breaker-options.ts'
import { MeshError } from '../../core/errors.ts'
import type { Layer } from '../../core/layer.ts'
import { counterOf, shadowCounter, stateGauge } from '../../core/metrics.ts'
import type { Outcome } from '../../core/outcome.ts'
import { OutcomeHandler } from '../../core/outcome.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { StateKey } from '../../core/service-state.ts'
import { isOneOf } from '../../core/statuses.ts'
import type { DispatchHandler, MeshDeps } from '../../core/types.ts'
import type { CircuitState } from './circuit.ts'
import { Circuit } from './circuit.ts'

const breakerKey = new StateKey<Breaker>('circuit-breaker')

/** Refuses calls while the service fails. A call that succeeds after a retry is no failure. */
export const circuitBreaker: Layer = (service, { circuitBreaker: options, timeout }, { routeState }) => {
  if (!options || !canOpen(options)) return null
  const isShared = options === service.config.mesh.circuitBreaker
  const breaker = isShared
    ? service.state(breakerKey, (deps) => new Breaker(service, options, deps))
    : routeState(service, breakerKey.name, options, (deps, route) => new Breaker(service, options, deps, route))
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

/** Names of the metrics: those of routes have one more label. */
const seriesOf = (kind: 'mesh' | 'mesh_route') => ({
  transitions: {
    name: `jingwei_${kind}_circuit_transitions_total`,
    help: 'Transitions of the circuit, by the state that it changed to.'
  },
  refusals: {
    name: `jingwei_${kind}_circuit_refusals_total`,
    help: 'Calls refused because the circuit is open, or half-open without room for a probe.'
  },
  state: { name: `jingwei_${kind}_circuit_state`, help: '0 while the circuit is closed, 1 half-open, 2 open.' }
})

/** Circuit of a service, or of the calls of one route to it, with its metrics and log lines. */
class Breaker implements ServiceState {
  readonly circuit: Circuit
  readonly slowAfterMs: number
  readonly isFailure: (status: number) => boolean
  readonly now: () => number
  /** Counts a call that was refused, or would have been in shadow mode. */
  readonly refuse: () => void
  readonly #mode: BreakerOptions['mode']
  readonly close: () => void

  /** `route` is undefined for the circuit of the service; '' for the policy of a call that belongs to no route. */
  constructor({ name }: Service, options: BreakerOptions, { now, random, meter, log }: MeshDeps, route?: string) {
    const { mode } = options
    const labels = { ...(route !== undefined && { route }), service: name }
    const series = seriesOf(route === undefined ? 'mesh' : 'mesh_route')
    this.#mode = mode
    this.slowAfterMs = options.slowAfter
    this.isFailure = isOneOf(options.failureStatuses)
    this.now = now
    const counts = new Map(
      Object.keys(levels).map((to) => [to, counterOf(meter, series.transitions, { ...labels, to })])
    )
    const refuse = counterOf(meter, series.refusals, labels)
    this.refuse =
      mode === 'shadow'
        ? shadowCounter(meter, name, route === undefined ? 'circuit-breaker' : 'route-circuit-breaker')
        : refuse
    this.circuit = new Circuit(options, now, random, (to, reason) => {
      const fields = { ...labels, reason, ...(mode === 'shadow' && { mode }) }
      log[to === 'open' ? 'warn' : 'info'](fields, `circuit of ${name}${route ? ` for route ${route}` : ''} is ${to}`)
      counts.get(to)!()
    })
    // For services, the alert can tell the mode by another metric, which has no label for the route.
    const isShown = route === undefined || mode !== 'shadow'
    this.close = stateGauge(isShown ? meter : null, series.state, labels, () => levels[this.circuit.state])
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

  protected override isFailure(status: number): boolean {
    return this.#breaker.isFailure(status)
  }

  protected override ended(outcome: Outcome, latencyMs: number, nowMs: number): void {
    const { circuit, slowAfterMs } = this.#breaker
    if (outcome === 'none') circuit.forget(this.#ticket)
    else circuit.settle(this.#ticket, outcome !== 'success', latencyMs > slowAfterMs, nowMs)
  }
}

const seconds = (ms: number) => `${ms / 1000}s`
const percent = (share: number | false) => `${Math.round(Number(share) * 1000) / 10}%`

/** Returns the text of `explain`. */
function textOf({ circuitBreaker: options }: MeshPolicy, { config }: Service): string | null {
  if (!options) return null
  const { consecutiveFailures, errorRatio, slowRatio, slowAfter, minRequests, window, failureStatuses } = options
  const { openFor, maxOpenFor } = options
  const conditions = [
    ...(consecutiveFailures === undefined ? [] : [`after ${consecutiveFailures} failures in a row`]),
    ...(errorRatio === false ? [] : [`at ${percent(errorRatio)} failures`]),
    ...(slowRatio === false ? [] : [`at ${percent(slowRatio)} slower than ${seconds(slowAfter)}`])
  ]
  const ratios =
    errorRatio === false && slowRatio === false ? '' : ` of at least ${minRequests} calls in ${seconds(window)}`
  const most = maxOpenFor === undefined ? '' : `, then longer, up to ${seconds(maxOpenFor)}`
  const whose = options === config.mesh.circuitBreaker ? 'of the service' : 'of this route'
  return `the circuit ${whose} opens ${conditions.join(', or ')}${ratios} (${failureStatuses.join(', ')}, or no response), for ${seconds(openFor)}${most}`
}

export default { name: 'circuit-breaker', layer: circuitBreaker, explain: textOf } satisfies MeshConcern
