/** Health checks of Kong's upstreams. */
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Returns `healthCheck` and `outlierDetection` for the checks that are on: those with an interval, or with numbers of failures. */
export function healthOf(checks: Foreign | undefined): Settings {
  const mesh: Settings = {}
  const active = checks?.map('active')
  const [healthy, unhealthy] = [active?.map('healthy'), active?.map('unhealthy')]
  const interval = healthy?.number('interval') ?? 0
  const type = active?.text('type') ?? 'http'
  const timeout = active?.number('timeout')
  const statuses = (healthy?.texts('http_statuses') ?? []).map(Number)
  const successes = healthy?.number('successes') ?? 0
  const path = active?.text('http_path') ?? '/'
  const failures = type === 'tcp' ? unhealthy?.number('tcp_failures') : unhealthy?.number('http_failures')
  for (const each of [active, healthy, unhealthy]) each?.skip(...each.keys)
  if (interval > 0) {
    mesh.healthCheck = {
      ...(type === 'tcp' ? { type: 'tcp' } : { path, ...(statuses.length > 0 && { statuses }) }),
      interval: `${interval}s`,
      ...(timeout !== undefined && timeout > 0 && { timeout: `${timeout}s` }),
      ...(successes > 0 && { healthyThreshold: successes }),
      ...(failures !== undefined && failures > 0 && { unhealthyThreshold: failures })
    }
  }
  const passive = checks?.map('passive')
  const bad = passive?.map('unhealthy')
  const ofHttp = bad?.number('http_failures') ?? 0
  const ofTcp = (bad?.number('tcp_failures') ?? 0) || (bad?.number('timeouts') ?? 0)
  for (const each of [passive, bad, passive?.map('healthy')]) each?.skip(...each.keys)
  if (ofHttp > 0 || ofTcp > 0) {
    mesh.outlierDetection = {
      consecutive5xx: ofHttp > 0 ? ofHttp : false,
      consecutiveGatewayFailures: ofTcp > 0 ? ofTcp : false
    }
  }
  checks?.skip('threshold')
  return mesh
}
