import { defaultsOf } from '../../../config/schema/kit.ts'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { Balancer, Instance, MeshDeps } from '../core/types.ts'
import type { BalanceOptions } from './schema.ts'
import { Balance } from './schema.ts'

/** The methods of a balancer that a policy implements. */
export type Choice = Omit<Balancer, 'has'>

/** Builds the choice among instances; none of them has weight 0, unless all have it. */
export type BalancingPolicy = (
  instances: readonly Instance[],
  options: BalanceOptions,
  deps: Pick<MeshDeps, 'random' | 'now'>
) => Choice

/** Default options of a policy that is given by its name alone. */
const defaults = defaultsOf(Balance)

/** Returns the options of a policy, which may be given by its name alone. */
export function balanceOptions(balance: MeshPolicy['balance']): BalanceOptions {
  return typeof balance === 'string' ? { ...defaults, policy: balance } : balance
}
