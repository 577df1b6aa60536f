import type { CircuitBreakerOptions } from '../../core/circuit-breaker-options.ts'
import { EndingHandler } from '../../core/handlers/ending-handler.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import type { DispatchHandler, Endpoint } from '../../core/types.ts'

/** Attempts in flight at a service, each with a permit to use a connection. */
export abstract class Permits implements ServiceState {
  /** Number of attempts with a permit. */
  active = 0
  protected readonly service: Service
  protected readonly options: CircuitBreakerOptions

  constructor(service: Service, options: CircuitBreakerOptions) {
    this.service = service
    this.options = options
  }

  release(): void {
    this.active--
  }

  status() {
    const { mode, maxConnections, maxPendingRequests, maxRequests = null } = this.options
    return { mode, active: this.active, pending: 0, maxConnections, maxPendingRequests, maxRequests }
  }

  /** Returns how many attempts at an instance are queued for one of its connections. */
  waitingAt({ active, maxConnections }: Endpoint): number {
    return Math.max(0, active - maxConnections)
  }

  instanceStatus(endpoint: Endpoint) {
    return { ...this.options.perInstance, pending: this.waitingAt(endpoint) }
  }
}

/** Releases the permit of an attempt when it ends, or when the socket of its upgrade has closed. */
export class PermitHandler extends EndingHandler {
  readonly #permits: Permits

  constructor(next: DispatchHandler, permits: Permits) {
    super(next)
    this.#permits = permits
  }

  protected override ended(): void {
    this.#permits.release()
  }
}
