import type { IncomingHttpHeaders } from 'node:http'
import { idempotency } from '../../core/repeating/idempotency.ts'
import type { DispatchOptions } from '../../core/types.ts'
import type { RetryOptions } from './options.ts'

/** Compiled retry conditions of a policy. */
export interface RetryRules {
  readonly failures: ReadonlySet<string>
  /** Returns the reason to retry after a response, or null. */
  readonly responseReason: (status: number, headers: IncomingHttpHeaders) => string | null
  /** Returns whether a request may be sent twice. */
  readonly idempotent: (opts: DispatchOptions) => boolean
  /** All possible reasons, for the series of the counter. */
  readonly reasons: readonly string[]
}

const headerPrefix = 'retriable-header:'

export function retryRules(options: RetryOptions): RetryRules {
  const on = new Set(options.on)
  const gateway = on.has('gateway-error')
  // As in Envoy: the caller would see an attempt without a response as 502 or 504.
  const unanswered = gateway || on.has('5xx') ? ['connect-failure', 'refused-stream', 'reset', 'timeout'] : []
  const words = [...on].filter((item) => typeof item === 'string')
  const named = words.filter((item) => item.startsWith(headerPrefix)) as string[]
  const headerNames = named.map((item) => item.slice(headerPrefix.length).trim().toLowerCase())
  const failures = new Set([...words.filter((item) => !item.startsWith(headerPrefix)), ...unanswered])
  const kinds = [...failures].filter((item) => item !== 'gateway-error' && item !== '5xx')
  const statuses = new Set([
    ...options.on.filter((item) => typeof item === 'number'),
    ...(gateway ? [502, 503, 504] : [])
  ])
  const reasons = [...kinds, ...[...statuses].map(String)]
  return {
    failures,
    reasons: headerNames.length > 0 ? [...reasons, 'retriable-header'] : reasons,
    idempotent: idempotency(options),
    responseReason(status, headers) {
      if (on.has(status) || (status >= 500 && (on.has('5xx') || (gateway && status >= 502 && status <= 504)))) {
        return String(status)
      }
      for (const name of headerNames) if (headers[name] !== undefined) return 'retriable-header'
      return null
    }
  }
}
