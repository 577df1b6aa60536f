/** `Retry-After` (RFC 9110, 10.2.3) of a response that is retried; it applies only to the instance that sent it. */
import type { Call } from '../../core/call.ts'
import type { Service } from '../../core/service.ts'
import type { Endpoint } from '../../core/types.ts'

export interface NextAttempt {
  /** Milliseconds to wait before the attempt; above 0 if every instance has sent a `Retry-After`. */
  readonly waitMs: number
  /** Endpoints that the attempt should avoid. */
  readonly tried: Set<Endpoint>
}

/** Parses seconds or a date to milliseconds from now; 0 for any other value. */
function parse(value: string | string[] | undefined): number {
  if (typeof value !== 'string') return 0
  const waitMs = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return waitMs > 0 ? waitMs : 0
}

/** Stores the `Retry-After` of the selected instance in its call. */
export function noteRetryAfter(call: Call, value: string | string[] | undefined, nowMs: number): void {
  const waitMs = parse(value)
  if (waitMs === 0 || call.selected === null) return
  call.retryAfter ??= new Map()
  call.retryAfter.set(call.selected.endpoint, nowMs + waitMs)
}

/** Returns an attempt at another instance at once, if there is one; else at a tried one after its `Retry-After`. */
export function nextAttempt(call: Call, service: Service, subset: string, nowMs: number): NextAttempt {
  const tried = new Set(call.tried)
  if (call.selected !== null) tried.add(call.selected.endpoint)
  const balancer = service.snapshot?.balancers[subset]
  if (call.retryAfter === null || !balancer || balancer.has(tried)) return { waitMs: 0, tried }
  const bound = [...call.retryAfter].filter(([, until]) => until > nowMs)
  const avoided = new Set(bound.map(([endpoint]) => endpoint))
  if (balancer.has(avoided)) return { waitMs: 0, tried: avoided }
  const times = bound.flatMap(([{ health }, until]) => (health.available ? until : []))
  const first = times.length === 0 ? nowMs : Math.min(...times)
  return {
    waitMs: first - nowMs,
    tried: new Set(bound.flatMap(([endpoint, until]) => (until > first ? endpoint : [])))
  }
}
