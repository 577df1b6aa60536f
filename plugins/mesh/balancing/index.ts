import type { MeshPolicy } from '../../../config/schema.ts'
import type { Balancer, Instance } from '../types.ts'
import { leastRequest } from './least-request.ts'
import { random } from './random.ts'
import { roundRobin } from './round-robin.ts'

type Policy = (instances: readonly Instance[], random: () => number) => Balancer

const policies: Record<MeshPolicy['balance'], Policy> = {
  'least-request': leastRequest,
  'round-robin': roundRobin,
  random
}

/**
 * A policy over a new snapshot. Instances of weight 0 take part only when all have it,
 * so that a service drained by weights still answers.
 */
export function createBalancer(
  policy: MeshPolicy['balance'],
  instances: readonly Instance[],
  random: () => number
): Balancer {
  const weighted = instances.filter((instance) => instance.weight > 0)
  return policies[policy](weighted.length > 0 ? weighted : instances, random)
}
