/** Keys that Redis has refused: a flood of refused requests does not become a flood of questions. */
import { FifoMap } from 'toad-cache'
import type { Hit } from './hits.ts'
import { refuses } from './hits.ts'

/** Longest time for which a refusal of Redis is believed without a further question. */
const longestRefusal = 10_000
/** Time in which one request before authentication may lead to that question. */
const askEvery = 1000

const most = 10_000

export class Refusals {
  readonly #known = new FifoMap<{ readonly believedUntil: number; readonly until: number }>(most)
  /** Times from which on one more request may lead to a question. */
  readonly #askAgain = new FifoMap<number>(most)

  /** Stores the answer of Redis for a limit. */
  learn(hit: Hit, now: number): void {
    const { wait } = hit
    if (wait > 0)
      this.#known.set(keyOf(hit), { believedUntil: now + Math.min(wait, longestRefusal), until: now + wait })
    else if (this.#known.size > 0) this.#known.delete(keyOf(hit))
  }

  /** Sets the state of limits whose refusal still holds. Returns whether one of them refuses. */
  apply(hits: readonly Hit[], now: number): boolean {
    if (this.#known.size === 0) return false
    for (const hit of hits) {
      const known = hit.rule.isShadow ? undefined : this.#known.get(keyOf(hit))
      if (known !== undefined && known.believedUntil > now) refuse(hit, known.until - now)
    }
    return hits.some(refuses)
  }

  /**
   * As `apply`, for limits before authentication, of which Redis is asked after it. One request in a while may pass: otherwise many
   * could be authenticated before Redis has answered for the first.
   */
  applyFirst(hits: readonly Hit[], now: number): boolean {
    if (this.#known.size === 0) return false
    if (this.apply(hits, now)) return true
    for (const hit of hits) {
      const key = keyOf(hit)
      const known = hit.rule.isShadow ? undefined : this.#known.get(key)
      if (known === undefined || known.until <= now) continue
      if ((this.#askAgain.get(key) ?? 0) > now) refuse(hit, known.until - now)
      else this.#askAgain.set(key, now + askEvery)
    }
    return hits.some(refuses)
  }
}

function refuse(hit: Hit, wait: number): void {
  hit.wait = wait
  hit.reset = wait
}

/** The quota is a part of the key: a consumer's new quota applies at once. */
const keyOf = ({ rule: { cost, quota, shared }, key }: Hit): string =>
  `${cost} ${quota.max} ${quota.burst} ${shared}${key}`
