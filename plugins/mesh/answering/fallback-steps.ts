import type { FallbackOptions } from '../../../config/schema.ts'
import { classify } from '../errors.ts'

/** How a call failed: a condition of the configuration, or an answer's status. */
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
  if (failure === 'refused-stream') return 'connect-failure'
  return failure === 'other' ? null : failure
}

/** A ready-made answer. */
export interface StaticAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
}

/** One entry of the configuration. */
export interface Step {
  readonly isFor: (failing: Failing) => boolean
  /** Another service; null where it is not one. */
  readonly service: string | null
  readonly stale: boolean
  readonly answer: StaticAnswer | null
}

export function compileStep(options: FallbackOptions): Step {
  const on = new Set<unknown>(options.on)
  const { service = null, stale } = options
  return {
    isFor: (failing) => on.has(failing) || (typeof failing === 'number' && failing >= 500 && on.has('5xx')),
    service,
    stale: stale !== undefined,
    answer: service === null && stale === undefined ? staticAnswer(options) : null
  }
}

function staticAnswer({ status = 200, headers = {}, body = '' }: FallbackOptions): StaticAnswer {
  const bytes = Buffer.from(body)
  const own = Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]))
  if (bytes.length > 0) own['content-type'] ??= isJson(body) ? 'application/json' : 'text/plain; charset=utf-8'
  const bodiless = status === 204 || status === 304
  if (bodiless) delete own['content-length']
  else own['content-length'] = String(bytes.length)
  return { status, headers: own, body: bodiless ? Buffer.alloc(0) : bytes }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}
