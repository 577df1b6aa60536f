/** Limits that apply to a request, with its keys. */
import type { FastifyRequest } from 'fastify'
import type { RecordRefusal } from '../../concern-refusals.ts'
import type { LimitReason } from './keys.ts'
import { keyFor, reasonOf } from './keys.ts'
import type { Ask } from './redis-link.ts'
import type { Rule } from './rules.ts'

/** A limit that applies to a request. */
export interface Hit {
  readonly rule: Rule
  readonly key: string
  remaining: number
  reset: number
  /** Milliseconds until the limit has the units; 0 if it has them. */
  wait: number
  /** True if the units are of a lease. */
  isLeased: boolean
  /** True if Redis is asked for a lease. */
  isRefill: boolean
}

export const refuses = ({ rule, wait }: Hit): boolean => wait > 0 && !rule.isShadow

export const reasonFor = ({ rule }: Hit, request: FastifyRequest): LimitReason =>
  rule.isSecond ? 'rate_max_per_address' : reasonOf(rule.by, request)

/** Throws if a request has a header twice that is a key. Rules in shadow mode are left out then, and recorded. */
export function hitsOf(rules: readonly Rule[], request: FastifyRequest, record: RecordRefusal | null): Hit[] {
  const hits: Hit[] = []
  for (const rule of rules) {
    const key = keyFor(rule, request, record)
    if (key !== null) hits.push({ rule, key, remaining: 0, reset: 0, wait: 0, isLeased: false, isRefill: false })
  }
  return hits
}

export const asksFor = (hits: readonly Hit[]): Ask[] =>
  hits.map((hit) => {
    const { rule, key } = hit
    const { quota, algorithm, cost, isShadow } = rule
    const wanted = rule.leases?.wanted(key, cost) ?? cost
    hit.isRefill = wanted > cost
    return { key: rule.shared + key, algorithm, quota, cost, wanted, isShadow }
  })

/** Ends the questions for leases: requests that wait for them continue. */
export function endQuestions(hits: readonly Hit[]): void {
  for (const { rule, key, isRefill } of hits) if (isRefill) rule.leases!.answered(key)
}
