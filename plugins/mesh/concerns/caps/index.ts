import type { MeshConcern } from '../../concern.ts'
import type { CircuitBreakerOptions } from '../../core/circuit-breaker-options.ts'
import { MeshError } from '../../core/errors.ts'
import type { Layer } from '../../core/layer.ts'
import { overflowCounter, serviceGauge } from '../../core/metrics.ts'
import type { Service } from '../../core/service.ts'
import { StateKey } from '../../core/service-state.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, MeshDeps } from '../../core/types.ts'
import { WaitQueue } from '../../core/waiting.ts'
import { PermitHandler, Permits } from './permits.ts'
import { ShadowCaps } from './shadow-caps.ts'

const capsKey = new StateKey<Caps>('caps')
const shadowCapsKey = new StateKey<ShadowCaps>('caps')

/** Limits attempts in flight and queued ones. The caps of an instance are enforced by its endpoint and by `select`. */
export const caps: Layer = (service) => {
  // Not those of the policy: a route may have a circuit, but no caps of its own.
  const { circuitBreaker: options } = service.config.mesh
  if (!options) return null
  if (options.mode === 'shadow') {
    const shadow = service.state(shadowCapsKey, (deps) => new ShadowCaps(service, options, deps))
    return (dispatch) => (opts, handler) => shadow.watch(dispatch, opts, handler)
  }
  const kept = service.state(capsKey, (deps) => new Caps(service, options, deps))
  return (dispatch) => (opts, handler) => kept.admit(dispatch, opts, handler)
}

/** Admits each attempt, queues it, or refuses it. */
class Caps extends Permits {
  readonly close: () => void
  readonly #queue: WaitQueue
  readonly #overflows: Readonly<Record<'maxConnections' | 'maxPendingRequests' | 'maxRequests', () => void>>
  readonly #maxRequests: number
  #draining = false

  constructor(service: Service, options: CircuitBreakerOptions, { meter, now }: MeshDeps) {
    super(service, options)
    this.#queue = new WaitQueue(now)
    this.#maxRequests = options.maxRequests ?? Number.POSITIVE_INFINITY
    const { name } = service
    this.#overflows = {
      maxConnections: overflowCounter(meter, name, 'maxConnections'),
      maxPendingRequests: overflowCounter(meter, name, 'maxPendingRequests'),
      maxRequests: overflowCounter(meter, name, 'maxRequests')
    }
    const gauge = {
      name: 'jingwei_mesh_pending_requests',
      help: 'Attempts queued for a connection to the service or to their instance.'
    }
    this.close = serviceGauge(meter, gauge, name, () => this.#pending())
  }

  admit(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    const { maxConnections, maxPendingRequests } = this.options
    const queue = this.#queue
    if (this.active + queue.size >= this.#maxRequests) return this.#refuse('maxRequests', opts, handler)
    if (this.active < maxConnections && queue.size === 0) return this.#run(dispatch, opts, handler)
    this.#overflows.maxConnections()
    if (queue.size >= maxPendingRequests) return this.#refuse('maxPendingRequests', opts, handler)
    queue.join(dispatch, opts, handler)
    return true
  }

  #run(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    this.active++
    return dispatch(opts, new PermitHandler(handler, this))
  }

  #refuse(cap: 'maxPendingRequests' | 'maxRequests', opts: DispatchOptions, handler: DispatchHandler): boolean {
    this.#overflows[cap]()
    const reason = cap === 'maxRequests' ? 'overload_requests' : 'overload_pending'
    handler.onResponseError?.(opts.call!, new MeshError('JW_OVERLOADED', this.service.name, undefined, reason))
    return true
  }

  override release(): void {
    this.active--
    // An attempt that fails at once calls this again: let the running loop go on instead of nesting another.
    if (this.#draining) return
    this.#draining = true
    try {
      while (this.active < this.options.maxConnections) {
        const waiter = this.#queue.next()
        if (waiter === null) break
        this.#run(waiter.dispatch, waiter.opts, waiter.handler)
      }
    } finally {
      this.#draining = false
    }
  }

  #pending(): number {
    let pending = this.#queue.size
    for (const { endpoint } of this.service.snapshot?.instances ?? []) pending += this.waitingAt(endpoint)
    return pending
  }

  override status() {
    return { ...super.status(), pending: this.#queue.size }
  }
}

export default { name: 'caps', layer: caps } satisfies MeshConcern
