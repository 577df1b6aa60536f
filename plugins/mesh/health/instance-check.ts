import type { Endpoint, MeshDeps } from '../core/types.ts'
import type { HealthCheckOptions } from './options.ts'
import type { Probe } from './probe.ts'

export const healthCheck = 'health-check'

/** Dependencies that the checks of an instance share. */
export interface CheckContext extends Pick<MeshDeps, 'now' | 'random'> {
  readonly options: HealthCheckOptions
  /** Its registry has looked at the instance already: one failure more is not yet proof of anything. */
  readonly vouched: boolean
  readonly count: (outcome: 'success' | 'failure') => void
  /** It is time: starts the check as soon as there is room. */
  readonly due: (check: InstanceCheck) => void
}

/** The checks of one instance, one after the other, and what follows from them. */
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

  /** `done` is called once, also if the check ends early. */
  run(done: () => void): void {
    const begunMs = this.#context.now()
    let over = false
    const callOff = this.#probe((failure, isLocal = false) => {
      over = true
      this.#cancel = null
      // A check for which this process had no resource says nothing of the instance.
      if (!isLocal) this.take(failure, begunMs)
      if (!this.ended) this.after(this.#pause())
      done()
    })
    if (over) return
    this.#cancel = () => {
      callOff()
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

  /** The interval, varied so that gateways do not march in step. */
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
