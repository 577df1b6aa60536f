import type { CircuitBreakerOptions } from '../../core/circuit-breaker-options.ts'
import { shadowCounter } from '../../core/metrics.ts'
import type { Service } from '../../core/service.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, Endpoint, MeshDeps } from '../../core/types.ts'
import { PermitHandler, Permits } from './permits.ts'

/** Counts attempts that would have been refused; these take no permit, and attempts that would have been queued do. */
export class ShadowCaps extends Permits {
  readonly #shadowed: () => void
  readonly #most: number
  readonly #mostOfInstance: number

  constructor(service: Service, options: CircuitBreakerOptions, { meter }: MeshDeps) {
    super(service, options)
    this.#shadowed = shadowCounter(meter, service.name, 'caps')
    this.#most = mostOf(options)
    this.#mostOfInstance = mostOf(options.perInstance)
  }

  watch(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    if (this.active >= this.#most) {
      this.#shadowed()
      return dispatch(opts, handler)
    }
    this.active++
    const result = dispatch(opts, new PermitHandler(handler, this))
    const at = opts.call!.selected?.endpoint
    if (at !== undefined && at.active > this.#mostOfInstance && this.#allFull(at)) this.#shadowed()
    return result
  }

  /** Returns whether no other instance could have taken the attempt. */
  #allFull(at: Endpoint): boolean {
    const instances = this.service.snapshot?.instances ?? []
    return instances.every(({ endpoint }) => endpoint === at || endpoint.active >= this.#mostOfInstance)
  }
}

function mostOf(options: Pick<CircuitBreakerOptions, 'maxConnections' | 'maxPendingRequests' | 'maxRequests'>): number {
  const { maxConnections, maxPendingRequests, maxRequests = Number.POSITIVE_INFINITY } = options
  return Math.min(maxConnections + maxPendingRequests, maxRequests)
}
