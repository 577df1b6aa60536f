/** DNS records → addresses and targets. Pure. */
import type { Answer } from 'dns-packet'
import type { Reply } from './dns-query.ts'
import { bare } from './dns-query.ts'

/** Records that answer a question, with the time in seconds that they may be kept. */
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

/** Addresses of one family, behind any number of aliases. */
export function addressesIn(reply: Reply, name: string, type: 'A' | 'AAAA'): Found<string> {
  return found(reply.answers, name, (record) => (record.type === type ? String(record.data) : null))
}

/** What the server sent along so that it need not be asked. */
export function additionalAddresses(reply: Reply, host: string): Found<string> {
  const records = [...reply.answers, ...reply.additionals]
  return found(records, host, (record) => (record.type === 'A' || record.type === 'AAAA' ? String(record.data) : null))
}

export function targetsIn(reply: Reply, name: string): Found<Target> {
  return found(reply.answers, name, (record) => {
    if (record.type !== 'SRV') return null
    const { target, port, priority = 0, weight = 0 } = record.data
    // The target "." says that the service is decidedly not offered here (RFC 2782).
    return bare(target) === '' || port === 0 ? null : { host: bare(target), port, priority, weight }
  })
}

function found<T>(answers: readonly Answer[], name: string, pick: (record: Answer) => T | null): Found<T> {
  const names = new Set([bare(name)])
  const records: T[] = []
  let ttl = Number.POSITIVE_INFINITY
  // An alias may stand after what it points to, so follow the chain first.
  for (let size = 0; size !== names.size; ) {
    size = names.size
    for (const record of answers) {
      if (record.type !== 'CNAME' || !names.has(bare(record.name))) continue
      names.add(bare(record.data))
      ttl = Math.min(ttl, record.ttl ?? 0)
    }
  }
  for (const record of answers) {
    const picked = names.has(bare(record.name)) ? pick(record) : null
    if (picked === null) continue
    records.push(picked)
    if ('ttl' in record) ttl = Math.min(ttl, record.ttl ?? 0)
  }
  return { records, ttl }
}

/** The groups of equal priority, the preferred one (lowest number) first. */
export function byPriority(targets: readonly Target[]): Target[][] {
  const groups = new Map<number, Target[]>()
  for (const target of targets) groups.set(target.priority, [...(groups.get(target.priority) ?? []), target])
  return [...groups].sort(([a], [b]) => a - b).map(([, group]) => group)
}

/**
 * RFC 2782 gives weight 0 a very small chance beside others, and equal chances among its like; for the balancer 0
 * means none. So 0 becomes 1, and the others are scaled to 100 at least.
 */
export function scaleWeights(weights: readonly number[]): number[] {
  const least = Math.min(...weights.filter((weight) => weight > 0))
  if (!weights.includes(0) || least === Number.POSITIVE_INFINITY) return weights.map((weight) => weight || 1)
  const factor = Math.ceil(100 / least)
  return weights.map((weight) => weight * factor || 1)
}
