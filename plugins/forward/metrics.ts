import type { Meter } from '../meter.ts'

/** Histogram buckets in seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

const outcomes = [
  'success',
  '4xx',
  '5xx',
  'connect-failure',
  'reset',
  'timeout',
  'overloaded',
  'aborted',
  'other'
] as const

export type Outcome = (typeof outcomes)[number]

/** The metrics of one service. */
export interface Metrics {
  readonly count: (outcome: Outcome) => void
  readonly observe: (seconds: number) => void
}

export function metricsOf(service: string, meter: Meter | null): Metrics {
  if (meter === null) return { count() {}, observe() {} }
  const calls = meter.counter({
    name: 'jingwei_forward_calls_total',
    help: 'Calls to services without the mesh, by outcome.',
    labelNames: ['service', 'outcome']
  })
  const counters = new Map(outcomes.map((outcome) => [outcome, calls.labels(service, outcome)]))
  const duration = meter
    .histogram({
      name: 'jingwei_forward_call_duration_seconds',
      help: 'Duration of calls to a service without the mesh, with the whole response.',
      labelNames: ['service'],
      buckets
    })
    .labels(service)
  return {
    count: (outcome) => counters.get(outcome)!.inc(),
    observe: (seconds) => duration.observe(seconds)
  }
}

/** Patterns of codes of undici and Node, and the outcome that they stand for. */
const failures: readonly (readonly [RegExp, Outcome])[] = [
  [/^JW_OVERLOADED$/, 'overloaded'],
  [/^JW_(UPSTREAM_MALFORMED|BAD_UPGRADE)$/, 'other'],
  [/TIMEOUT$/, 'timeout'],
  [/^(ECONNREFUSED|ENOTFOUND|EAI_\w+|(EHOST|ENET)(UNREACH|DOWN)|EPROTO|ERR_(SSL|TLS)_\w+)$|CERT/, 'connect-failure'],
  [/^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/, 'reset']
]

/** Returns the outcome of a call: by its status, or by the error that ended it. */
export function outcomeOf(result: number | Error, wasAborted: boolean): Outcome {
  if (typeof result === 'number') return result >= 500 ? '5xx' : result >= 400 ? '4xx' : 'success'
  const { code } = result as { code?: unknown }
  if (typeof code !== 'string') return wasAborted ? 'aborted' : 'other'
  const [, outcome] = failures.find(([pattern]) => pattern.test(code)) ?? []
  return outcome ?? (wasAborted ? 'aborted' : 'other')
}
