import { classify } from '../../core/errors.ts'
import type { StaticResponse } from '../../core/handlers/static-response.ts'
import { staticResponse } from '../../core/handlers/static-response.ts'
import type { FallbackOptions } from './options.ts'

/** Failure of a call: a condition of the configuration, or the status of a response. */
export type Failing = Exclude<FallbackOptions['on'][number], '5xx'>

const refusals: Readonly<Record<string, Failing>> = {
  JW_NO_INSTANCE: 'no-instance',
  JW_NO_SERVICE: 'no-instance',
  JW_CIRCUIT_OPEN: 'circuit-open',
  // Nothing was sent.
  JW_CREDENTIALS_UNAVAILABLE: 'connect-failure',
  JW_OVERLOADED: 'overloaded',
  JW_UPSTREAM_LIMITED: 'overloaded'
}

/** Returns the condition that an error matches, or null. `sent`: an instance may have received the request. */
export function failingOf(error: Error & { code?: string }, sent: boolean): Failing | null {
  const refusal = refusals[error.code ?? '']
  if (refusal !== undefined) return refusal
  const failure = classify(error, sent)
  if (failure === 'local') return 'overloaded'
  if (failure === 'refused-stream') return 'connect-failure'
  return failure === 'other' ? null : failure
}

/** A compiled entry of `fallback`. */
export interface Step {
  readonly isFor: (failing: Failing) => boolean
  /** Name of another service; null for other kinds. */
  readonly service: string | null
  readonly stale: boolean
  readonly response: StaticResponse | null
}

export function compileStep(options: FallbackOptions): Step {
  const on = new Set<unknown>(options.on)
  const { service = null, stale, status = 200, headers = {}, body = '' } = options
  return {
    isFor: (failing) => on.has(failing) || (typeof failing === 'number' && failing >= 500 && on.has('5xx')),
    service,
    stale: stale !== undefined,
    response: service === null && stale === undefined ? staticResponse(status, headers, body) : null
  }
}
