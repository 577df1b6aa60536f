/** Decisions about the requests of one route: from the cache, or from the server. */
import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Meter } from '../../../meter.ts'
import type { AuthServer } from '../../bridge/auth-server.ts'
import { AuthFailure } from '../../bridge/auth-server.ts'
import type { ByteLru } from '../../byte-lru.ts'
import type { Allowed, Refused } from './decision.ts'
import { decisionOf, needsBody } from './decision.ts'
import type { ForwardAuthOptions } from './options.ts'
import type { Outgoing } from './outgoing.ts'

export interface Kept {
  readonly decision: Allowed
  /** Time of the monotonic clock, in milliseconds. */
  readonly until: number
}

export interface Measures {
  readonly allowed: () => void
  readonly cached: () => void
  readonly refused: () => void
  readonly failed: () => void
  readonly took: (ms: number) => void
}

const results = ['allowed', 'cached', 'refused', 'failed'] as const

/** Buckets of the duration histogram, in seconds. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]

/** Returns the functions that count and time the decisions of a route. */
export function measuresOf(meter: Meter, route: string): Measures {
  const counter = meter.counter({
    name: 'jingwei_edge_forward_auth_requests_total',
    help: 'Decisions of forward auth, by route and result: allowed, cached, refused or failed.',
    labelNames: ['route', 'result']
  })
  const histogram = meter.histogram({
    name: 'jingwei_edge_forward_auth_duration_seconds',
    help: 'Time of the calls to the server of forward auth, by route.',
    labelNames: ['route'],
    buckets
  })
  const duration = histogram.labels(route)
  // Made at start: rate() does not see the first increment of a series that starts with it.
  const [allowed, cached, refused, failed] = results.map((result) => {
    const series = counter.labels(route, result)
    return () => series.inc()
  }) as [() => void, () => void, () => void, () => void]
  return { allowed, cached, refused, failed, took: (ms) => duration.observe(ms / 1000) }
}

export class Decider {
  readonly #options: ForwardAuthOptions
  readonly #server: AuthServer
  readonly #known: ByteLru<Kept> | null
  readonly #measures: Measures
  readonly #now: () => number

  constructor(
    options: ForwardAuthOptions,
    server: AuthServer,
    known: ByteLru<Kept> | null,
    measures: Measures,
    now: () => number
  ) {
    this.#options = options
    this.#server = server
    this.#known = known
    this.#measures = measures
    this.#now = now
  }

  /** Returns the decision about a request. Throws an `AuthFailure`, or the reason for which the client has disconnected. */
  async decide(request: FastifyRequest, { decisive, ...call }: Outgoing): Promise<Allowed | Refused> {
    const key = decisive === null ? null : hash('sha256', decisive, 'base64')
    const kept = key === null ? undefined : this.#known?.get(key)
    const begun = this.#now()
    if (kept !== undefined && begun < kept.until) {
      this.#measures.cached()
      return kept.decision
    }
    try {
      const decision = await this.#ask(request, call)
      this.#measures[decision.isAllowed ? 'allowed' : 'refused']()
      if (key !== null && decision.isAllowed && decision.ttl > 0) {
        this.#known?.set(key, { decision, until: begun + decision.ttl }, key.length + sizeOf(decision))
      }
      return decision
    } catch (error) {
      if (error instanceof AuthFailure) this.#measures.failed()
      throw error
    } finally {
      this.#measures.took(this.#now() - begun)
    }
  }

  #ask(request: FastifyRequest, call: Omit<Outgoing, 'decisive'>): Promise<Allowed | Refused> {
    const needed = (status: number) => needsBody(this.#options, status)
    const whole = { ...call, needsBody: needed, endsWithClient: true }
    return this.#server.call(request, whole, (response) => decisionOf(this.#options, response))
  }
}

function sizeOf({ forService, forClient, consumer }: Allowed): number {
  const fields = [...forService, ...forClient].flatMap(([name, values]) => [name, ...values])
  return fields.reduce((sum, text) => sum + text.length, consumer?.length ?? 0)
}
