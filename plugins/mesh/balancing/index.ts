import type { MeshPolicy } from '../../../config/schema.ts'
import type { Balancer, Instance, MeshDeps } from '../core/types.ts'
import { leastRequest } from './least-request.ts'
import { maglev } from './maglev.ts'
import { peakEwma } from './peak-ewma.ts'
import type { BalancingPolicy } from './policy.ts'
import { balanceOptions } from './policy.ts'
import { random } from './random.ts'
import { ringHash } from './ring-hash.ts'
import { roundRobin } from './round-robin.ts'
import type { BalanceOptions } from './schema.ts'

const policies: Record<BalanceOptions['policy'], BalancingPolicy> = {
  'least-request': leastRequest,
  'round-robin': roundRobin,
  random,
  'ring-hash': ringHash,
  maglev,
  'peak-ewma': peakEwma
}

/**
 * Creates the balancer of a new snapshot. Instances of weight 0 are used only if all have it, so that a service that
 * was drained by weights still responds.
 */
export function createBalancer(
  balance: MeshPolicy['balance'],
  instances: readonly Instance[],
  deps: Pick<MeshDeps, 'random' | 'now'>
): Balancer {
  const options = balanceOptions(balance)
  const weighted = instances.filter((instance) => instance.weight > 0)
  const chosen = weighted.length > 0 ? weighted : instances
  const { pick, describe } = policies[options.policy](chosen, options, deps)
  return {
    pick,
    has: (tried) => chosen.some(({ endpoint }) => !tried.has(endpoint)),
    ...(describe && { describe })
  }
}
