import type { Balancer, Instance } from '../core/types.ts'
import { firstUntried } from './weighted.ts'

/**
 * Extends a balancer by instances of other zones and failover datacenters: a retry goes to these when all nearer
 * instances were tried, before any is tried twice.
 */
export function withReserve(
  balancer: Balancer,
  chosen: readonly Instance[],
  all: readonly Instance[],
  random: () => number
): Balancer {
  const near = new Set(chosen.map(({ endpoint }) => endpoint))
  const reserve = all.filter(({ endpoint, weight }) => endpoint.health.available && weight > 0 && !near.has(endpoint))
  if (reserve.length === 0) return balancer
  return {
    pick(tried, hash) {
      const instance = balancer.pick(tried, hash)
      if (instance !== null || tried === null) return instance
      return firstUntried(reserve, Math.floor(random() * reserve.length), tried)
    },
    has: (tried) => balancer.has(tried) || reserve.some(({ endpoint }) => !tried.has(endpoint)),
    ...(balancer.describe && { describe: balancer.describe })
  }
}
