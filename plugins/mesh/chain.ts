import type { Key } from '../../config/concern.ts'
import { balanceKey } from './balancing/schema.ts'
import type { MeshConcern } from './concern.ts'
import adaptiveConcurrency from './concerns/adaptive-concurrency/index.ts'
import attemptTimeout from './concerns/attempt-timeout.ts'
import basePath from './concerns/base-path.ts'
import caps from './concerns/caps/index.ts'
import circuitBreaker from './concerns/circuit-breaker/index.ts'
import collapse from './concerns/collapse/index.ts'
import credentials from './concerns/credentials/index.ts'
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
import tracing from './concerns/tracing.ts'
import { connectKeys } from './connect/options.ts'
import { Call } from './core/call.ts'
import type {} from './core/call-options.ts'
import type { Layer } from './core/layer.ts'
import { callKeys } from './core/options.ts'
import handOver from './hand-over.ts'
import { healthCheckKey } from './health/options.ts'

/** Creates the `Call`, and replaces undici's own timers by those of the mesh. */
const beginCall: Layer = (service, policy, { now }) => {
  const bodyTimeout = policy.idleTimeout === false ? 0 : policy.idleTimeout
  return (dispatch) => (opts, handler) => {
    const call = new Call(service, handler, now())
    return call.begin(dispatch, { ...opts, call, headersTimeout: 0, bodyTimeout })
  }
}

/**
 * The mesh's concerns in the order in which a call passes them; `request` and `attempt` are the positions of plugins'
 * interceptors. Concerns that may respond in place of the service stand outside the deadline, so that they can respond
 * after it has passed. `call` gives all layers above it one stable controller. Retry and hedge repeat the layers below
 * them: first those that admit an attempt, then `select`, so that a retry goes to another instance, then those of one
 * attempt at one instance. To add a concern, add its file and a line here; to remove one, delete both.
 */
export const concerns: readonly (MeshConcern | 'request' | 'attempt')[] = [
  { name: 'telemetry', layer: callTelemetry }, // outermost: times the whole call
  collapse, // callers that share a response share its fallback
  fallback, // outside the deadline, so that it can respond after a timeout
  deadline,
  responseTimeout, // limits the response that the caller gets
  'request',
  { name: 'call', layer: beginCall },
  intentions, // before mirror: a denied call is not copied either
  circuitBreaker, // counts calls, not attempts: a call that succeeds after a retry is no failure
  mirror, // once per call, whatever its outcome
  basePath, // after fallback and mirror, whose services have base paths of their own; all attempts have the same path
  hash, // once per call, so that all attempts have the same hash
  replay, // buffers the bodies that the layers below send again
  credentials, // after mirror, whose copies get those of the shadow service; outside retry, so that all attempts have the same
  retry,
  hedge,
  adaptiveConcurrency,
  caps,
  rateLimit, // after the caps, so that only an attempt that will be sent takes a token
  select,
  latency, // after select: measures the selected instance
  { name: 'attempt-telemetry', layer: attemptTelemetry },
  tracing, // as the telemetry; before the interceptors of plugins, which see the `traceparent` of the attempt
  outlierDetection,
  'attempt',
  attemptTimeout,
  fault, // inner: all other concerns see a fault as a failure of the service
  handOver // innermost: the message to the sidecar that runs this mesh half
]

const bundled = concerns.filter((concern) => typeof concern !== 'string')

/** Keys of `mesh`: those of the concerns, of balancing, calls, connections and health checks. */
export const meshKeys: readonly Key[] = [
  ...bundled.flatMap((concern) => concern.keys ?? []),
  balanceKey,
  ...callKeys,
  ...connectKeys,
  healthCheckKey
]
