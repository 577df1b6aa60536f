/** Options as the loader completes them from what a user writes. */

import type { MeshPolicy } from '../../../config/schema.ts'
import { parseConfig } from '../../../plugins/config.ts'

export function policyOf(mesh: object): Partial<MeshPolicy> {
  const written = {
    services: { orders: { instances: ['http://127.0.0.1:1'], mesh } },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  }
  const { services } = parseConfig(JSON.stringify(written), `${import.meta.dirname}/policy.yaml`, {})
  const { circuitBreaker, adaptiveConcurrency, limit } = services.orders!.mesh
  return {
    ...(circuitBreaker !== undefined && { circuitBreaker }),
    ...(adaptiveConcurrency !== undefined && { adaptiveConcurrency }),
    ...(limit !== undefined && { limit })
  }
}
