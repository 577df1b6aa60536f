/** Pure functions that extract addresses and SRV targets from DNS records. */
import type { Answer } from 'dns-packet'
import type { Reply } from './query.ts'
import { bare } from './query.ts'

/** Records of a response, with their TTL in seconds. */
export interface Found<T> {
  readonly records: readonly T[]
  readonly ttl: number
  readonly nonexistent?: boolean
}
export interface Target {
  readonly host: string
  readonly port: number
  readonly priority: number
  readonly weight: number
}

/** Returns the addresses of one family, following any number of aliases. */
export function addressesIn(reply: Reply, name: string, type: 'A' | 'AAAA'): Found<string> {
  return found(byName(reply.answers), name, (record) => (record.type === type ? String(record.data) : null))
}

/**
 * Returns a function that looks up a host's addresses in a reply with its additional section, without another query.
 */
export function additionalAddresses(reply: Reply): (host: string) => Found<string> {
  // Group once for all hosts: there may be as many hosts as records.
  const records = byName([...reply.answers, ...reply.additionals])
  const pick = (record: Answer) => (record.type === 'A' || record.type === 'AAAA' ? String(record.data) : null)
  return (host) => found(records, host, pick)
}

export function targetsIn(reply: Reply, name: string): Found<Target> {
  return found(byName(reply.answers), name, (record) => {
    if (record.type !== 'SRV') return null
    const { target, port, priority = 0, weight = 0 } = record.data
    // The target "." means that the service is not available at this domain (RFC 2782).
    return bare(target) === '' || port === 0 ? null : { host: bare(target), port, priority, weight }
  })
}

type ByName = ReadonlyMap<string, readonly Answer[]>

const byName = (answers: readonly Answer[]): ByName => Map.groupBy(answers, (record) => bare(record.name))

/** Returns the records of a name, and of the names that it is an alias of. */
function found<T>(answers: ByName, name: string, pick: (record: Answer) => T | null): Found<T> {
  const names = new Set([bare(name)])
  const records: T[] = []
  let ttl = Number.POSITIVE_INFINITY
  // The loop also visits names that are added during it.
  for (const next of names) {
    for (const record of answers.get(next) ?? []) {
      const isAlias = record.type === 'CNAME'
      if (isAlias) names.add(bare(record.data))
      const picked = pick(record)
      if (picked !== null) records.push(picked)
      if ((isAlias || picked !== null) && 'ttl' in record) ttl = Math.min(ttl, record.ttl ?? 0)
    }
  }
  return { records, ttl }
}

/** Returns groups of equal priority, the preferred one (lowest number) first. */
export function byPriority(targets: readonly Target[]): Target[][] {
  return [...Map.groupBy(targets, ({ priority }) => priority)].sort(([a], [b]) => a - b).map(([, group]) => group)
}

/**
 * Converts SRV weights for the balancer. In RFC 2782, weight 0 means a very small chance beside others, and equal
 * chances if all have it; for the balancer 0 means none. So 0 becomes 1, and the others are scaled to at least 100.
 */
export function scaleWeights(weights: readonly number[]): number[] {
  const least = Math.min(...weights.filter((weight) => weight > 0))
  if (!weights.includes(0) || least === Number.POSITIVE_INFINITY) return weights.map((weight) => weight || 1)
  const factor = Math.ceil(100 / least)
  return weights.map((weight) => weight * factor || 1)
}
