import type { IncomingHttpHeaders } from 'node:http'
import { idempotency } from '../../core/repeating/idempotency.ts'
import type { DispatchOptions } from '../../core/types.ts'
import type { RetryOptions } from './options.ts'

/** A policy's conditions, ready to be asked. */
export interface RetryRules {
  readonly failures: ReadonlySet<string>
  /** The reason to send an answered request again, or null. */
  readonly answer: (status: number, headers: IncomingHttpHeaders) => string | null
  /** Returns whether a request may be sent twice. */
  readonly idempotent: (opts: DispatchOptions) => boolean
  /** Reasons that are known before one comes. */
  readonly reasons: readonly string[]
}

const headerPrefix = 'retriable-header:'

export function retryRules(options: RetryOptions): RetryRules {
  const on = new Set(options.on)
  const gateway = on.has('gateway-error')
  // As in Envoy: no answer is what the caller would see as 502 or 504.
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
    answer(status, headers) {
      if (on.has(status) || (status >= 500 && (on.has('5xx') || (gateway && status >= 502 && status <= 504)))) {
        return String(status)
      }
      for (const name of headerNames) if (headers[name] !== undefined) return 'retriable-header'
      return null
    }
  }
}
