import type { Instance } from '../core/types.ts'

/** Of its weight, where a new instance begins; Envoy's `min_weight_percent`. */
const least = 0.1
/** Between two steps of the ramp, at least: each step costs a new balancer. */
const stepMs = 1000

/**
 * The weights of new and recovered instances grow linearly over the window. What counts is being newer than others:
 * the oldest keeps its weight, and where all have come together none works its way up.
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
