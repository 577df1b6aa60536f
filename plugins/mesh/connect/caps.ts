import type { MeshPolicy } from '../../../config/schema.ts'

/** Envoy's; in force also where no circuit breaker is. */
const defaultCap = 1024

/** How many connections to one instance there may be, and how many attempts at it, waiting ones included. */
export function capsOf({ circuitBreaker }: MeshPolicy): { connections: number; most: number } {
  if (!circuitBreaker || circuitBreaker.mode === 'shadow') return { connections: defaultCap, most: 2 * defaultCap }
  const { maxConnections, maxPendingRequests, maxRequests = Number.POSITIVE_INFINITY } = circuitBreaker.perInstance
  // A service's connection is taken back into use a turn of the event loop after its answer, so without the lesser
  // of the two the next attempt in the service's line would open another one.
  const connections = Math.min(maxConnections, circuitBreaker.maxConnections)
  return { connections, most: Math.min(maxConnections + maxPendingRequests, maxRequests) }
}
