import type { BalancingPolicy } from './index.ts'
import { random } from './random.ts'

/** Ketama's ring. */
export const ringHash: BalancingPolicy = random
