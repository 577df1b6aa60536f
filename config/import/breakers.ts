/** Circuit breakers of other gateways, which open after failures in a row, as policies of the mesh. */
import type { Foreign } from './foreign.ts'
import type { Settings } from './yaml-text.ts'

/** No ratio opens the circuit, and it closes without a ramp. */
const inRow = { errorRatio: false, slowRatio: false, rampFor: 0 }

/** Returns the policies of api-breaker of APISIX, which stays open for 2, 4, 8 … seconds. */
export function apisixBreaker(config: Foreign): Settings {
  const unhealthy = config.map('unhealthy')
  const statuses = unhealthy?.texts('http_statuses') ?? []
  const healthy = config.map('healthy')
  healthy?.skip('http_statuses')
  const code = config.number('break_response_code') ?? 502
  const body = config.text('break_response_body')
  const headers = config
    .maps('break_response_headers')
    .map((each) => [each.text('key') ?? '', each.text('value') ?? ''])
  const isOwn = code !== 503 || body !== undefined || headers.length > 0
  return {
    circuitBreaker: {
      consecutiveFailures: unhealthy?.number('failures') ?? 3,
      failureStatuses: statuses.length > 0 ? statuses.map(Number) : [500],
      openFor: '2s',
      maxOpenFor: `${Math.max(2, config.number('max_breaker_sec') ?? 300)}s`,
      consecutiveSuccesses: healthy?.number('successes') ?? 3,
      ...inRow
    },
    ...(isOwn && {
      fallback: [
        {
          on: ['circuit-open'],
          status: code,
          ...(headers.length > 0 && { headers: Object.fromEntries(headers) as Settings }),
          ...(body !== undefined && { body })
        }
      ]
    })
  }
}

/** Returns the policy of qos/circuit-breaker of KrakenD, which counts all statuses but 2xx and 3xx as failures. */
export function krakendBreaker(config: Foreign): Settings {
  const failures = config.number('max_errors') ?? 1
  const seconds = config.number('timeout') ?? 10
  config.skip('interval', 'name', 'log_status_change')
  return {
    circuitBreaker: {
      consecutiveFailures: Math.max(1, failures),
      failureStatuses: ['400-599'],
      openFor: `${Math.max(1, seconds)}s`,
      ...inRow
    }
  }
}
