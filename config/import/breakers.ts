/** Circuit breakers of other gateways, which open after failures in a row or by ratios, as policies of the mesh. */
import { goDuration } from './durations.ts'
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

const share = (ratio: string): number => Math.max(1, Math.round(Number(ratio) * 100))

/** Returns the conditions of an expression of Traefik's circuitBreaker, of which one suffices; null if it has others. */
function conditionsOf(expression: string): Settings | null {
  const found: Settings = { errorRatio: false, slowRatio: false }
  const statuses: (number | string)[] = []
  const addErrors = (ratio: string, more: readonly (number | string)[]) => {
    statuses.push(...more)
    found.errorRatio = Math.min(share(ratio), found.errorRatio === false ? 100 : Number(found.errorRatio))
  }
  for (const term of expression.split('||').map((each) => each.replace(/\s+/g, ''))) {
    const [, ofNetwork] = /^NetworkErrorRatio\(\)>=?([\d.]+)$/.exec(term) ?? []
    const [, from, to, least, most, ofCodes] =
      /^ResponseCodeRatio\((\d+),(\d+),(\d+),(\d+)\)>=?([\d.]+)$/.exec(term) ?? []
    const [, quantile, ms] = /^LatencyAtQuantileMS\(([\d.]+)\)>=?([\d.]+)$/.exec(term) ?? []
    if (ofNetwork !== undefined) addErrors(ofNetwork, [502, 504])
    else if (ofCodes !== undefined && Number(least) <= 200 && Number(most) >= 600)
      addErrors(ofCodes, [`${Math.max(100, Number(from))}-${Math.min(599, Number(to) - 1)}`])
    else if (quantile !== undefined && found.slowAfter === undefined) {
      found.slowAfter = `${Math.max(1, Math.round(Number(ms)))}ms`
      found.slowRatio = `${Math.max(1, Math.round(100 - Number(quantile)))}%`
    } else return null
  }
  if (statuses.length > 0)
    Object.assign(found, { errorRatio: `${Number(found.errorRatio)}%`, failureStatuses: statuses })
  return found
}

/** Returns the policies of the middleware circuitBreaker of Traefik; null if its expression has no counterpart. */
export function traefikBreaker(expression: string, options: Foreign): Settings | null {
  const conditions = conditionsOf(expression)
  const [openFor, rampFor] = [options.text('fallbackDuration') ?? '10s', options.text('recoveryDuration') ?? '10s']
  const status = options.number('responseCode') ?? 503
  options.skip('checkPeriod')
  if (conditions === null) return null
  return {
    circuitBreaker: { ...conditions, openFor: goDuration(openFor), rampFor: goDuration(rampFor) },
    ...(status !== 503 && { fallback: [{ on: ['circuit-open'], status }] })
  }
}
