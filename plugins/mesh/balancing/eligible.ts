import type { Instance, Locality } from '../core/types.ts'
import { localShares } from './locality.ts'
import type { BalanceOptions } from './schema.ts'
import { slowStart } from './slow-start.ts'

export interface Eligible {
  /** Eligible instances with their effective weights. */
  readonly instances: readonly Instance[]
  readonly panic: boolean
  /** Milliseconds after which the result must be computed again, for slow start; null: not by time. */
  readonly changesInMs: number | null
}

/**
 * Returns the eligible instances with their effective weights. First by rank: instances of failover datacenters are
 * used only while no earlier one is available. Within a rank, if too few are available (panic), health is ignored, as
 * are slow start and locality, which would concentrate the traffic on a few.
 */
export function eligible(
  instances: readonly Instance[],
  options: BalanceOptions,
  locality: Locality,
  nowMs: number
): Eligible {
  const rank = servingRank(instances)
  const available = rank.filter(isAvailable)
  if (available.length < rank.length * options.panicThreshold) {
    return { instances: rank, panic: true, changesInMs: null }
  }
  const { slowStart: window, locality: nearness, localThreshold } = options
  if (window === undefined && nearness === 'ignore') return { instances: available, panic: false, changesInMs: null }
  const { instances: started, changesInMs } = slowStart(weighty(available), window ?? 0, nowMs)
  const near = nearness === 'prefer' ? localShares(started, weighty(rank), locality, localThreshold) : started
  return { instances: near, panic: false, changesInMs }
}

const isAvailable = ({ endpoint }: Instance) => endpoint.health.available

/** Drops instances of weight 0, unless all have it, as `createBalancer` does. */
function weighty(instances: readonly Instance[]): readonly Instance[] {
  const some = instances.filter(({ weight }) => weight > 0)
  return some.length > 0 ? some : instances.map((instance) => ({ ...instance, weight: 1 }))
}

/** Returns the first rank with an available instance, else the first rank. */
function servingRank(instances: readonly Instance[]): readonly Instance[] {
  const ranks = new Map<number, Instance[]>()
  for (const instance of instances) {
    const rank = Number(instance.meta['failover-rank']) || 0
    const members = ranks.get(rank)
    if (members === undefined) ranks.set(rank, [instance])
    else members.push(instance)
  }
  if (ranks.size <= 1) return instances
  const inOrder = [...ranks].sort(([a], [b]) => a - b).map(([, members]) => members)
  return inOrder.find((members) => members.some(isAvailable)) ?? inOrder[0]!
}
