import type { BalancingPolicy } from './index.ts'
import { random } from './random.ts'

/** Maglev's table. */
export const maglev: BalancingPolicy = random
