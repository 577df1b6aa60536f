import type { Endpoint, MeshDeps } from '../core/types.ts'
import type { HealthCheckOptions } from './options.ts'
import type { Probe } from './probe.ts'

export const healthCheck = 'health-check'

/** Dependencies that the checks of an instance share. */
export interface CheckContext extends Pick<MeshDeps, 'now' | 'random'> {
  readonly options: HealthCheckOptions
  /** True if the instance has passed its registry's checks, so that a single failure does not decide. */
  readonly vouched: boolean
  readonly count: (outcome: 'success' | 'failure') => void
  /** Called when a check is due; starts it as soon as fewer than the limit run. */
  readonly due: (check: InstanceCheck) => void
}

/** Consecutive checks of one instance, and its health by their results. */
export class InstanceCheck {
  ended = false
  readonly #endpoint: Endpoint
  readonly #probe: Probe
  readonly #context: CheckContext
  #timer: NodeJS.Timeout | undefined
  #cancel: (() => void) | null = null
  #out = false
  #failures = 0
  #successes = 0
  #failure: string | null = null
  #checkedAt: number | null = null

  constructor(endpoint: Endpoint, probe: Probe, context: CheckContext) {
    this.#endpoint = endpoint
    this.#probe = probe
    this.#context = context
  }

  after(ms: number): void {
    this.#timer = setTimeout(() => this.#context.due(this), ms).unref()
  }

  /** Runs a check; `done` is called once, even if the check is cancelled. */
  run(done: () => void): void {
    const begunMs = this.#context.now()
    let over = false
    const cancelProbe = this.#probe((failure, isLocal = false) => {
      over = true
      this.#cancel = null
      // Ignore the result of a check that failed for lack of a resource of this process.
      if (!isLocal) this.take(failure, begunMs)
      if (!this.ended) this.after(this.#pause())
      done()
    })
    if (over) return
    this.#cancel = () => {
      cancelProbe()
      done()
    }
  }

  /** Takes the result of a check; `failure` is null if it succeeded. */
  take(failure: string | null, begunMs: number): void {
    const { options, vouched, count, now } = this.#context
    const { health } = this.#endpoint
    const first = this.#checkedAt === null
    this.#checkedAt = now()
    this.#failure = failure
    count(failure === null ? 'success' : 'failure')
    if (failure !== null) {
      this.#failures++
      this.#successes = 0
      this.#out ||= this.#failures >= options.unhealthyThreshold || (first && !vouched)
      if (this.#out) health.obstruct(healthCheck, failure)
      return
    }
    this.#successes++
    this.#failures = 0
    if (this.#out && this.#successes >= options.healthyThreshold) {
      this.#out = false
      health.clear(healthCheck, `passed ${this.#successes} checks in a row`)
    }
    if (!this.#out) health.prove(begunMs)
  }

  /** Returns the interval with jitter, so that gateways do not check in step. */
  #pause(): number {
    const { options, random } = this.#context
    return options.interval * (1 + options.jitter * (2 * random() - 1))
  }

  status() {
    if (this.#checkedAt === null) return { outcome: null }
    return {
      outcome: this.#failure === null ? 'success' : 'failure',
      ...(this.#failure !== null && { reason: this.#failure }),
      agoMs: Math.round(this.#context.now() - this.#checkedAt),
      consecutiveSuccesses: this.#successes,
      consecutiveFailures: this.#failures
    }
  }

  end(): void {
    this.ended = true
    clearTimeout(this.#timer)
    const cancel = this.#cancel
    this.#cancel = null
    cancel?.()
  }
}
