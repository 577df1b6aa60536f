import type { Count } from '../metrics.ts'
import { counterOf, shadowCounter } from '../metrics.ts'
import type { Service } from '../service.ts'
import type { ServiceState } from '../service-state.ts'
import { StateKey } from '../service-state.ts'
import type { MeshDeps } from '../types.ts'
import { RetryBudget } from './retry-budget.ts'

const retryLimit = new StateKey<RetryLimit>('retries')

/**
 * Limit of all retries and hedges of a service: its retry budget, and the circuit breaker's cap on those in flight at a
 * time.
 */
export class RetryLimit implements ServiceState {
  #active = 0
  readonly #budget = new RetryBudget()
  readonly #most: number
  readonly #shadowed: Count | null
  readonly #overflow: Count
  readonly #now: MeshDeps['now']

  /** Returns the limit of a service, created for its first chain. */
  static of(service: Service): RetryLimit {
    return service.state(retryLimit, (deps) => new RetryLimit(service, deps))
  }

  constructor(service: Service, { meter, now }: MeshDeps) {
    this.#now = now
    const breaker = service.config.mesh.circuitBreaker || undefined
    this.#most = breaker?.maxRetries ?? Number.POSITIVE_INFINITY
    const shadow = breaker?.maxRetries !== undefined && breaker.mode === 'shadow'
    this.#shadowed = shadow ? shadowCounter(meter, service.name, 'max-retries') : null
    const overflows = {
      name: 'jingwei_mesh_retry_overflows_total',
      help: 'Retries and hedges refused by the retry budget or by maxRetries.'
    }
    this.#overflow = counterOf(meter, overflows, { service: service.name })
  }

  /** Counts a call, of which the budget is a share. */
  call(startedMs: number): void {
    this.#budget.call(startedMs)
  }

  /**
   * Returns whether another retry is allowed; if so, it is in flight until `release`. With `held` it replaces an
   * earlier retry of the same call. A `share` of null is not counted towards the budget.
   */
  take(share: number | null, held = false): boolean {
    const active = held ? this.#active - 1 : this.#active
    const full = active >= this.#most
    const allowed = (!full || this.#shadowed !== null) && (share === null || this.#budget.take(share, this.#now()))
    if (!allowed) {
      this.#overflow()
      return false
    }
    if (full) this.#shadowed?.()
    this.#active = active + 1
    return true
  }

  release(): void {
    this.#active--
  }

  status() {
    return { active: this.#active, ...(this.#most < Number.POSITIVE_INFINITY && { maxRetries: this.#most }) }
  }
}
