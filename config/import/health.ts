/** Health checks of the upstreams of Kong and APISIX. */
import { duration } from './draft.ts'
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** Values where a file sets none. Zero is off. */
interface Usual {
  readonly interval: number
  readonly successes: number
  readonly httpFailures: number
  readonly tcpFailures: number
  /** Statuses of healthy instances; none for those of the gateway. */
  readonly statuses: readonly number[]
}

const none: Usual = { interval: 0, successes: 0, httpFailures: 0, tcpFailures: 0, statuses: [] }
const ofApisix: Usual = { interval: 1, successes: 2, httpFailures: 5, tcpFailures: 2, statuses: [200, 302] }

/** Returns `healthCheck` and `outlierDetection` of APISIX, whose checks are on if they are in the file. */
export const apisixHealthOf = (checks: Foreign | undefined): Settings => healthOf(checks, ofApisix)

/** Returns `healthCheck` and `outlierDetection` for the checks that are on: those with an interval, or with numbers of failures. */
export function healthOf(checks: Foreign | undefined, usual: Usual = none): Settings {
  const mesh: Settings = {}
  const active = checks?.map('active')
  const [healthy, unhealthy] = [active?.map('healthy'), active?.map('unhealthy')]
  const interval = active === undefined ? 0 : (healthy?.number('interval') ?? usual.interval)
  const type = active?.text('type') ?? 'http'
  const timeout = active?.number('timeout')
  const host = active?.text('host')
  const given = (healthy?.texts('http_statuses') ?? []).map(Number)
  const statuses = given.length > 0 ? given : usual.statuses
  const successes = healthy?.number('successes') ?? usual.successes
  const path = active?.text('http_path') ?? '/'
  const failures =
    type === 'tcp'
      ? (unhealthy?.number('tcp_failures') ?? usual.tcpFailures)
      : (unhealthy?.number('http_failures') ?? usual.httpFailures)
  for (const each of [active, healthy, unhealthy]) each?.skip(...each.keys)
  if (interval > 0) {
    mesh.healthCheck = {
      ...(type === 'tcp' ? { type: 'tcp' } : { path, ...(statuses.length > 0 && { statuses }) }),
      ...(type !== 'tcp' && host !== undefined && { host }),
      interval: duration(interval * 1000),
      ...(timeout !== undefined && timeout > 0 && { timeout: duration(timeout * 1000) }),
      ...(successes > 0 && { healthyThreshold: successes }),
      ...(failures > 0 && { unhealthyThreshold: failures })
    }
  }
  const passive = checks?.map('passive')
  const bad = passive?.map('unhealthy')
  const ofPassive = passive === undefined ? none : usual
  const ofHttp = bad?.number('http_failures') ?? ofPassive.httpFailures
  const ofTcp = (bad?.number('tcp_failures') ?? ofPassive.tcpFailures) || (bad?.number('timeouts') ?? 0)
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
