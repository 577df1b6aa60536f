/** Units of limits that are decided in this process: taken, and given back. */
import type { Quota } from './algorithms.ts'
import { available } from './algorithms.ts'
import type { Hit } from './hits.ts'
import type { Rule } from './rules.ts'

/** Returns the quota of a limit on this node. */
export type QuotaOf = (rule: Rule) => Quota

/** Takes the units of all limits in this process, or of none; sets the state of each. */
export function takeAll(hits: readonly Hit[], now: number, quotaOf: QuotaOf): boolean {
  let isWithin = true
  for (const hit of hits) {
    const { rule, key } = hit
    const quota = quotaOf(rule)
    const entry = rule.entries.get(key, now)
    const left = available(rule.algorithm, entry, now, quota)
    hit.reset = entry.until - now
    hit.remaining = Math.max(0, Math.floor(left))
    if (left >= rule.cost) continue
    hit.wait = Math.max(1, rule.algorithm.wait(entry, now, quota, rule.cost))
    if (!rule.isShadow) isWithin = false
  }
  if (!isWithin) return false
  for (const hit of hits) {
    if (hit.wait > 0) continue
    const { rule, key } = hit
    const entry = rule.entries.get(key, now)
    rule.algorithm.add(entry, rule.cost, quotaOf(rule))
    hit.reset = entry.until - now
    hit.remaining = Math.max(0, hit.remaining - rule.cost)
  }
  return true
}

/** Takes the units of the lease of a limit, if there is one with enough. */
export function takeOfLease(hit: Hit, now: number): boolean {
  const { rule, key } = hit
  const lease = rule.leases?.take(key, rule.cost, now) ?? null
  if (lease === null) return false
  hit.isLeased = true
  hit.remaining = lease.left + lease.remaining
  hit.reset = Math.max(0, lease.resetAt - now)
  return true
}

/** Gives back the units that a request has taken, because another limit refuses it. */
export function giveBack(hits: readonly Hit[], now: number, quotaOf: QuotaOf): void {
  for (const { rule, key, wait, isLeased } of hits) {
    if (isLeased) rule.leases!.giveBack(key, rule.cost)
    if (wait > 0 || rule.shared !== null) continue
    const entry = rule.entries.get(key, now)
    rule.algorithm.add(entry, -rule.cost, quotaOf(rule))
    if (entry.value < 0) entry.value = 0
  }
}
