/** Options as the loader completes them, endpoints that only have health, and a log that keeps its lines. */

import type { MeshPolicy } from '../../../config/schema.ts'
import { parseConfig } from '../../../plugins/config.ts'
import type { OutlierOptions } from '../../../plugins/mesh/concerns/outlier-detection/options.ts'
import type { Endpoint, Instance, Logger } from '../../../plugins/mesh/core/types.ts'
import { InstanceHealth } from '../../../plugins/mesh/health/health.ts'
import type { HealthCheckOptions } from '../../../plugins/mesh/health/options.ts'

function policyOf(mesh: object): MeshPolicy {
  const config = { services: { any: { instances: ['http://127.0.0.1:1'], mesh } }, routes: [] }
  return parseConfig(JSON.stringify(config), `${import.meta.dirname}/gateway.yaml`, {}).services.any!.mesh
}

/** Takes options as they are written in a configuration. */
export function checkOptions(healthCheck: object): HealthCheckOptions {
  return policyOf({ healthCheck }).healthCheck as HealthCheckOptions
}

export function outlierOptions(outlierDetection: object): OutlierOptions {
  return policyOf({ outlierDetection }).outlierDetection as OutlierOptions
}

export interface Line {
  level: 'info' | 'warn' | 'error'
  message: string
  [field: string]: unknown
}

export function logOf() {
  const lines: Line[] = []
  const keep = (level: Line['level']) => (fields: object, message: string) =>
    void lines.push({ ...fields, level, message })
  const log: Logger = { info: keep('info'), warn: keep('warn'), error: keep('error') }
  return { log, lines }
}

/** An instance without a connection; `flips` lists the changes of its availability, in order. */
export function instanceOf(name: string, now: () => number = () => 0) {
  const flips: string[] = []
  const health = new InstanceHealth(now, (available, concern, reason) => {
    flips.push(`${available ? 'in' : 'out'}: ${concern}: ${reason}`)
  })
  const origin = `http://${name}.test`
  const endpoint: Endpoint = {
    origin,
    active: 0,
    latencyMs: null,
    health,
    onAttempt: null,
    maxConnections: 1024,
    isFull: () => false,
    dispatch: () => true
  }
  const instance: Instance = { id: name, origin, weight: 1, tags: [], meta: {}, endpoint }
  return { instance, endpoint, health, flips }
}
