import { adaptiveConcurrency } from './concerns/adaptive-concurrency/index.ts'
import { attemptTimeout } from './concerns/attempt-timeout.ts'
import { caps } from './concerns/caps/index.ts'
import { circuitBreaker } from './concerns/circuit-breaker/index.ts'
import { collapse } from './concerns/collapse/index.ts'
import { deadline } from './concerns/deadline.ts'
import { fallback } from './concerns/fallback/index.ts'
import { fault } from './concerns/fault/index.ts'
import { hashKey } from './concerns/hash-key.ts'
import { hedge } from './concerns/hedge/index.ts'
import { intentions } from './concerns/intentions.ts'
import { latency } from './concerns/latency.ts'
import { mirror } from './concerns/mirror.ts'
import { outlierDetection } from './concerns/outlier-detection/index.ts'
import { rateLimit } from './concerns/rate-limit/index.ts'
import { replay } from './concerns/replay.ts'
import { responseTimeout } from './concerns/response-timeout.ts'
import { retry } from './concerns/retry/index.ts'
import { select } from './concerns/select.ts'
import { attemptTelemetry, callTelemetry } from './concerns/telemetry.ts'
import { Call } from './core/call.ts'
import type {} from './core/call-options.ts'
import type { Layer } from './core/layer.ts'

export interface Named {
  readonly name: string
  readonly layer: Layer
}

/** What users have added, by where it goes. */
export interface Used {
  readonly request: readonly Named[]
  readonly attempt: readonly Named[]
}

/**
 * The mesh's concerns in the order in which a call meets them. What may answer in the service's place stands outside
 * the deadline, or could not answer when that has passed; the call gives whatever is above it one stable controller;
 * retry and hedge repeat what is below them: what admits an attempt, selection, so that a retry goes elsewhere, then
 * what concerns one attempt at one instance. To add a concern, add its file and a line here; to remove one, the reverse.
 */
export function layers(used: Used): Named[] {
  return [
    { name: 'telemetry', layer: callTelemetry }, // sees all that happens
    { name: 'collapse', layer: collapse }, // who shares an answer shares its fallback
    { name: 'fallback', layer: fallback }, // also when the deadline has passed
    { name: 'deadline', layer: deadline },
    { name: 'response-timeout', layer: responseTimeout }, // of the response that the caller gets
    ...used.request,
    { name: 'call', layer: beginCall },
    { name: 'intentions', layer: intentions }, // not even a copy goes where we may not
    { name: 'circuit-breaker', layer: circuitBreaker }, // calls, not attempts: what a retry saved is no failure
    { name: 'mirror', layer: mirror }, // once a call, whatever becomes of it
    { name: 'hash', layer: hashKey }, // the same for all attempts
    { name: 'replay', layer: replay }, // what retry and hedge send again
    { name: 'retry', layer: retry },
    { name: 'hedge', layer: hedge },
    { name: 'adaptive-concurrency', layer: adaptiveConcurrency },
    { name: 'caps', layer: caps },
    { name: 'rate-limit', layer: rateLimit }, // last, so that only what will be sent takes a token
    { name: 'select', layer: select },
    { name: 'latency', layer: latency }, // of the instance that was selected
    { name: 'attempt-telemetry', layer: attemptTelemetry },
    { name: 'outlier-detection', layer: outlierDetection },
    ...used.attempt,
    { name: 'attempt-timeout', layer: attemptTimeout },
    { name: 'fault', layer: fault } // innermost: to all others a fault is the service's
  ]
}

/** Makes the call's record, and hands undici's own timers over to the mesh's. */
const beginCall: Layer = (service, policy, { now }) => {
  const bodyTimeout = policy.idleTimeout === false ? 0 : policy.idleTimeout
  return (dispatch) => (opts, handler) => {
    const call = new Call(service, handler, now())
    return call.begin(dispatch, { ...opts, call, headersTimeout: 0, bodyTimeout })
  }
}
