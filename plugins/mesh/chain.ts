import type { Key } from '../../config/concern.ts'
import { balanceKey } from './balancing/schema.ts'
import type { MeshConcern } from './concern.ts'
import adaptiveConcurrency from './concerns/adaptive-concurrency/index.ts'
import attemptTimeout from './concerns/attempt-timeout.ts'
import caps from './concerns/caps/index.ts'
import circuitBreaker from './concerns/circuit-breaker/index.ts'
import collapse from './concerns/collapse/index.ts'
import deadline from './concerns/deadline.ts'
import fallback from './concerns/fallback/index.ts'
import fault from './concerns/fault/index.ts'
import hash from './concerns/hash-key.ts'
import hedge from './concerns/hedge/index.ts'
import intentions from './concerns/intentions.ts'
import latency from './concerns/latency.ts'
import mirror from './concerns/mirror.ts'
import outlierDetection from './concerns/outlier-detection/index.ts'
import rateLimit from './concerns/rate-limit/index.ts'
import replay from './concerns/replay.ts'
import responseTimeout from './concerns/response-timeout.ts'
import retry from './concerns/retry/index.ts'
import select from './concerns/select.ts'
import { attemptTelemetry, callTelemetry } from './concerns/telemetry.ts'
import { connectKeys } from './connect/options.ts'
import { Call } from './core/call.ts'
import type {} from './core/call-options.ts'
import type { Layer } from './core/layer.ts'
import { callKeys } from './core/options.ts'
import { healthCheckKey } from './health/options.ts'

/** Makes the call's record, and hands undici's own timers over to the mesh's. */
const beginCall: Layer = (service, policy, { now }) => {
  const bodyTimeout = policy.idleTimeout === false ? 0 : policy.idleTimeout
  return (dispatch) => (opts, handler) => {
    const call = new Call(service, handler, now())
    return call.begin(dispatch, { ...opts, call, headersTimeout: 0, bodyTimeout })
  }
}

/**
 * The mesh's concerns in the order in which a call meets them; `request` and `attempt` are the places of users'
 * interceptors. Concerns that may answer in the service's place stand outside the deadline, or could not answer when
 * that has passed. The call gives all that is above it one stable controller. Retry and hedge repeat what is below them:
 * first what admits an attempt, then selection, so that a retry goes elsewhere, then what concerns one attempt at one
 * instance. To add a concern, add its file and a line here; to remove one, the reverse.
 */
export const concerns: readonly (MeshConcern | 'request' | 'attempt')[] = [
  { name: 'telemetry', layer: callTelemetry }, // sees all that happens
  collapse, // callers that share a response share its fallback
  fallback, // also when the deadline has passed
  deadline,
  responseTimeout, // of the response that the caller gets
  'request',
  { name: 'call', layer: beginCall },
  intentions, // not even a copy goes where we may not
  circuitBreaker, // calls, not attempts: a call that a retry saved is no failure
  mirror, // once a call, whatever becomes of it
  hash, // the same for all attempts
  replay, // keeps the bodies that those below send again
  retry,
  hedge,
  adaptiveConcurrency,
  caps,
  rateLimit, // last, so that only an attempt that will be sent takes a token
  select,
  latency, // of the instance that was selected
  { name: 'attempt-telemetry', layer: attemptTelemetry },
  outlierDetection,
  'attempt',
  attemptTimeout,
  fault // innermost: to all others a fault is the service's
]

const bundled = concerns.filter((concern) => typeof concern !== 'string')

/** The keys of `mesh`: of the concerns, and of what carries them. */
export const meshKeys: readonly Key[] = [
  ...bundled.flatMap((concern) => concern.keys ?? []),
  balanceKey,
  ...callKeys,
  ...connectKeys,
  healthCheckKey
]
