import type { MeshPolicy } from '../../../config/schema.ts'
import type { Balancer, Instance, MeshDeps } from '../core/types.ts'
import type { BalanceOptions } from './schema.ts'

/** A policy's part of a balancer. */
export type Choice = Omit<Balancer, 'has'>

/** Builds the choice among instances none of which has the weight 0, unless all have it. */
export type BalancingPolicy = (
  instances: readonly Instance[],
  options: BalanceOptions,
  deps: Pick<MeshDeps, 'random' | 'now'>
) => Choice

/** Values that the schema fills in where a policy is given by its name alone. */
const defaults: BalanceOptions = {
  policy: 'least-request',
  choices: 2,
  ringSize: 1024,
  tableSize: 65_537,
  decay: 10_000,
  panicThreshold: 0.5,
  locality: 'ignore',
  localThreshold: 0.7
}

export function balanceOptions(balance: MeshPolicy['balance']): BalanceOptions {
  return typeof balance === 'string' ? { ...defaults, policy: balance } : balance
}
