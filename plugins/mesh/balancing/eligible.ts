import type { Instance, Locality } from '../core/types.ts'
import { localShares } from './locality.ts'
import type { BalanceOptions } from './schema.ts'
import { slowStart } from './slow-start.ts'

export interface Eligible {
  /** Those that may be chosen, with the weights that count now. */
  readonly instances: readonly Instance[]
  readonly panic: boolean
  /** In how many milliseconds this answer will be out of date by itself; null: never. */
  readonly changesInMs: number | null
}

/**
 * Which instances take part, given their health, and with what weight. First the rank: those of failover datacenters
 * serve only while none before them is available. Within it, panic: if too few are available, health is not to be
 * trusted, and neither slow start nor locality shall heap the traffic on a few.
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

/** As `createBalancer` does: without those of weight 0, unless all have it, which is as good as all having 1. */
function weighty(instances: readonly Instance[]): readonly Instance[] {
  const some = instances.filter(({ weight }) => weight > 0)
  return some.length > 0 ? some : instances.map((instance) => ({ ...instance, weight: 1 }))
}

/** The first rank of which one is available; if none is, the first. */
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
