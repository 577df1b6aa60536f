import type { Endpoint, Instance } from '../core/types.ts'
import type { Description } from './describe.ts'
import { describer, rounded } from './describe.ts'
import type { BalancingPolicy } from './policy.ts'
import { firstUntried, weightedSampler } from './weighted.ts'

/**
 * Finagle's peak EWMA: an average that decays with time rather than with each measurement, and that a slower response
 * replaces at once. Without requests it decays to 0, so that an instance that was slow is tried again.
 */
export class PeakEwma {
  readonly #decayMs: number
  #value: number | null = null
  /** Time of the last attempt at the instance. */
  askedMs = Number.NEGATIVE_INFINITY
  /** The last attempt has failed. */
  failing = false
  #atMs = 0

  constructor(decayMs: number) {
    this.#decayMs = decayMs
  }

  /** Returns the average in milliseconds; null before the first measurement. */
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
   * Counts a failure as a response that took `worstMs`, weighted like any other response: one failure does not exclude
   * an instance, and failing fast does not count as being fast.
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

/** Averages by endpoint, so that a new snapshot keeps them; the policy has one configuration per service. */
const ewmas = new WeakMap<Endpoint, PeakEwma>()

export function ewmaOf(endpoint: Endpoint, decayMs: number): PeakEwma {
  let ewma = ewmas.get(endpoint)
  if (ewma === undefined) {
    ewma = new PeakEwma(decayMs)
    ewmas.set(endpoint, ewma)
  }
  return ewma
}

/** Cost of an unmeasured instance while its first attempt is in flight: others are preferred. */
const unmeasured = 1e12

/** Number of calls of which at most one is a probe. */
const callsPerProbe = 20
/** Time without a call after which an instance is probed, as a share of the decay time. */
const probeAfter = 0.2

/**
 * Draws two instances by weight and picks the one with the lower cost: its latency, times one more than the requests in
 * flight for its weight. The layer `latency` measures latencies. The other instance gets a probe now and then, unless
 * it fails: with few concurrent calls, one slow response would otherwise exclude it until its peak has decayed.
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
      if (latency === null) return { active, score: active === 0 ? 0 : 'awaiting its first response' }
      return { active, ewmaMs: rounded(latency), score: rounded(cost(index, now())) }
    })
  }
}
