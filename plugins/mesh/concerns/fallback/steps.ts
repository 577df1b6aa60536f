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
  JW_OVERLOADED: 'overloaded',
  JW_UPSTREAM_LIMITED: 'overloaded'
}

/** Which condition a failure is; null for those that no fallback is for. `sent` is whether an instance may have it. */
export function failingOf(error: Error & { code?: string }, sent: boolean): Failing | null {
  const refusal = refusals[error.code ?? '']
  if (refusal !== undefined) return refusal
  const failure = classify(error, sent)
  if (failure === 'local') return 'overloaded'
  if (failure === 'refused-stream') return 'connect-failure'
  return failure === 'other' ? null : failure
}

/** One entry of the configuration. */
export interface Step {
  readonly isFor: (failing: Failing) => boolean
  /** Another service; null where it is not one. */
  readonly service: string | null
  readonly stale: boolean
  readonly answer: StaticResponse | null
}

export function compileStep(options: FallbackOptions): Step {
  const on = new Set<unknown>(options.on)
  const { service = null, stale, status = 200, headers = {}, body = '' } = options
  return {
    isFor: (failing) => on.has(failing) || (typeof failing === 'number' && failing >= 500 && on.has('5xx')),
    service,
    stale: stale !== undefined,
    answer: service === null && stale === undefined ? staticResponse(status, headers, body) : null
  }
}
