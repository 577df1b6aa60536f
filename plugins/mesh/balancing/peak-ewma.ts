import type { Endpoint, Instance } from '../core/types.ts'
import type { Description } from './describe.ts'
import { describer, rounded } from './describe.ts'
import type { BalancingPolicy } from './policy.ts'
import { firstUntried, weightedSampler } from './weighted.ts'

/**
 * Finagle's peak EWMA: an average that fades with time rather than with each measurement, and that a slower answer
 * replaces at once. Unasked it fades to nothing, so that an instance that was slow is tried again.
 */
export class PeakEwma {
  readonly #decayMs: number
  #value: number | null = null
  /** Time at which an attempt was last sent to the instance. */
  askedMs = Number.NEGATIVE_INFINITY
  /** The last attempt has failed. */
  failing = false
  #atMs = 0

  constructor(decayMs: number) {
    this.#decayMs = decayMs
  }

  /** Milliseconds; null while nothing was measured. */
  valueAt(nowMs: number): number | null {
    return this.#value === null ? null : this.#value * this.#fade(nowMs)
  }

  observe(elapsedMs: number, nowMs: number): number {
    this.failing = false
    const before = this.valueAt(nowMs)
    if (before === null || elapsedMs > before) return this.#set(elapsedMs, nowMs)
    return this.#set(before + elapsedMs * (1 - this.#fade(nowMs)), nowMs)
  }

  /**
   * A failure counts as an answer that took `worstMs`, by its share of the answers: so one does not banish an
   * instance, and to fail fast is not to be fast.
   */
  fail(elapsedMs: number, worstMs: number, nowMs: number): number {
    this.failing = true
    const before = this.valueAt(nowMs)
    if (before === null) return this.#set(worstMs, nowMs)
    return this.#set(Math.max(elapsedMs, before + worstMs * (1 - this.#fade(nowMs))), nowMs)
  }

  #set(value: number, nowMs: number): number {
    this.#value = value
    this.#atMs = nowMs
    return value
  }

  #fade(nowMs: number): number {
    return Math.exp((this.#atMs - nowMs) / this.#decayMs)
  }
}

/** By address, so that a new snapshot keeps what was measured; the policy has one configuration per service. */
const ewmas = new WeakMap<Endpoint, PeakEwma>()

export function ewmaOf(endpoint: Endpoint, decayMs: number): PeakEwma {
  let ewma = ewmas.get(endpoint)
  if (ewma === undefined) {
    ewma = new PeakEwma(decayMs)
    ewmas.set(endpoint, ewma)
  }
  return ewma
}

/** Of what nobody has measured, while one attempt does so: others go there only if they must. */
const unmeasured = 1e12

/** At most one call in so many is a probe. */
const callsPerProbe = 20
/** Time that an instance goes without a call before it is probed, as a share of the decay. */
const probeAfter = 0.2

/**
 * Of two drawn by weight, the one that would answer sooner: its latency, times those in flight for its weight and one
 * more. Latencies are measured by the layer `latency`. The other one gets a call now and then, unless it fails:
 * with few calls at a time, one slow response would otherwise keep an instance without calls until its peak has faded.
 */
export const peakEwma: BalancingPolicy = (instances, { decay }, { random, now }) => {
  const sample = weightedSampler(instances, random)
  const count = instances.length
  const ewmas: readonly PeakEwma[] = instances.map(({ endpoint }) => ewmaOf(endpoint, decay))
  let sinceProbe = 0

  function cost(index: number, nowMs: number): number {
    const { weight, endpoint } = instances[index]!
    const waiting = endpoint.active / (weight || 1)
    const latency = ewmas[index]!.valueAt(nowMs)
    if (latency !== null) return latency * (waiting + 1)
    return waiting === 0 ? 0 : unmeasured + waiting
  }

  function isProbeDue(index: number, nowMs: number): boolean {
    const { askedMs, failing } = ewmas[index]!
    if (failing || instances[index]!.endpoint.active > 0 || nowMs - askedMs < decay * probeAfter) return false
    return sinceProbe >= callsPerProbe
  }

  function take(index: number, nowMs: number): Instance {
    ewmas[index]!.askedMs = nowMs
    return instances[index]!
  }

  return {
    pick(tried): Instance | null {
      if (count <= 1) return count === 1 && !tried?.has(instances[0]!.endpoint) ? instances[0]! : null
      const i = sample()
      let j = sample()
      if (j === i) j = (j + 1) % count
      const nowMs = now()
      const [better, other] = cost(i, nowMs) <= cost(j, nowMs) ? [i, j] : [j, i]
      sinceProbe++
      if (tried === null && isProbeDue(other, nowMs)) {
        sinceProbe = 0
        return take(other, nowMs)
      }
      if (tried === null || !tried.has(instances[better]!.endpoint)) return take(better, nowMs)
      return tried.has(instances[other]!.endpoint) ? firstUntried(instances, i, tried) : instances[other]!
    },
    describe: describer(instances, ({ endpoint: { active } }, index): Description => {
      const latency = ewmas[index]!.valueAt(now())
      if (latency === null) return { active, score: active === 0 ? 0 : 'awaiting its first answer' }
      return { active, ewmaMs: rounded(latency), score: rounded(cost(index, now())) }
    })
  }
}
