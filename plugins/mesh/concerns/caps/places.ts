import type { CircuitBreakerOptions } from '../../core/circuit-breaker-options.ts'
import { EndingHandler } from '../../core/handlers/ending-handler.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import type { DispatchHandler, Endpoint } from '../../core/types.ts'

/** Attempts under way at a service, each of which has the use of a connection. */
export abstract class Places implements ServiceState {
  /** Attempts that use a connection. */
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

  /** Of those in flight at an instance, how many wait for one of its connections. */
  waitingAt({ active, maxConnections }: Endpoint): number {
    return Math.max(0, active - maxConnections)
  }

  instanceStatus(endpoint: Endpoint) {
    return { ...this.options.perInstance, pending: this.waitingAt(endpoint) }
  }
}

/** Gives the place of one attempt back when the attempt is over, or the socket of its upgrade has closed. */
export class PlaceHandler extends EndingHandler {
  readonly #places: Places

  constructor(next: DispatchHandler, places: Places) {
    super(next)
    this.#places = places
  }

  protected override ended(): void {
    this.#places.release()
  }
}
