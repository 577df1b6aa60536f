import type { Instance } from '../core/types.ts'

/** Share of its weight with which a new instance starts; Envoy's `min_weight_percent`. */
const least = 0.1
/** Shortest time between two steps of the ramp: each step needs a new balancer. */
const stepMs = 1000

/**
 * Scales the weights of new and recovered instances, which grow linearly over the window. Age is relative to the oldest
 * instance, which keeps its weight: if all are equally new, none is scaled.
 */
export function slowStart(
  instances: readonly Instance[],
  windowMs: number,
  nowMs: number
): { instances: readonly Instance[]; changesInMs: number | null } {
  const ages = instances.map(({ endpoint }) => nowMs - endpoint.health.since)
  const oldest = ages.reduce((most, age) => Math.max(most, age), 0)
  const youngest = ages.reduce((least, age) => Math.min(least, age), Number.POSITIVE_INFINITY)
  if (youngest >= windowMs || (oldest < windowMs && oldest - youngest < stepMs)) return { instances, changesInMs: null }

  const full = ramp(oldest, windowMs)
  let changesInMs = Math.max(stepMs, windowMs / 10)
  const weighted = instances.map((instance, i) => {
    const age = ages[i]!
    if (age >= windowMs) return instance
    changesInMs = Math.min(changesInMs, windowMs - age)
    const factor = ramp(age, windowMs) / full
    return factor === 1 ? instance : { ...instance, weight: instance.weight * factor }
  })
  return { instances: weighted, changesInMs: Math.ceil(changesInMs) }
}

function ramp(ageMs: number, windowMs: number): number {
  return Math.min(1, Math.max(least, ageMs / windowMs))
}
