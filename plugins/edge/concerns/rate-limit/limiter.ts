/**
 * Applies all limits of a route to a request: the request takes units of all of them, or of none. Limits in Redis are asked
 * for together, in one round trip. @fastify/rate-limit, which applies the simple limits (see index.ts), has fixed windows
 * only, counts each request as one, and applies one limit to a request.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { seconds, setHeaders } from './headers.ts'
import type { Hit } from './hits.ts'
import { asksFor, endQuestions, hitsOf, reasonFor, refuses } from './hits.ts'
import type { LimitReason } from './keys.ts'
import type { Answer, Ask, RedisLink } from './redis-link.ts'
import { Refusals } from './refusals.ts'
import type { Rule } from './rules.ts'
import type { QuotaOf } from './take.ts'
import { giveBack, takeAll, takeOfLease } from './take.ts'

export const RateLimited = createError('JW_RATE_LIMITED', 'Rate limit exceeded, retry in %s', 429)
const Unavailable = createError('JW_RATE_LIMIT_UNAVAILABLE', 'The rate limit cannot be checked at the moment', 503)

/** Steps by which a limit in Redis is decided, for the metrics. */
export const steps = ['redis', 'lease', 'known', 'share', 'open', 'closed'] as const
export type Step = (typeof steps)[number]
type Count = (step: Step) => void

export type Done = (error?: Error) => void

interface LimiterOptions {
  readonly link: RedisLink | undefined
  /** Returns the number of nodes of this gateway, 0 while it is not known. */
  readonly nodes: () => number
  readonly now: Clock['now']
  readonly count: Count
  /** Records refusals of limits in shadow mode. */
  readonly record: RecordRefusal
}

export class Limiter {
  readonly #link: RedisLink | undefined
  readonly #nodes: () => number
  readonly #now: Clock['now']
  readonly #count: Count
  readonly #record: RecordRefusal
  readonly #refusals = new Refusals()

  constructor({ link, nodes, now, count, record }: LimiterOptions) {
    this.#record = record
    this.#link = link
    this.#nodes = nodes
    this.#now = now
    this.#count = count
  }

  /** Calls back with an error if one of the limits refuses. */
  admit(
    rules: readonly Rule[],
    request: FastifyRequest,
    reply: FastifyReply,
    done: Done,
    count: Count = this.#count
  ): void {
    let hits: Hit[]
    try {
      hits = hitsOf(rules, request, this.#record)
    } catch (error) {
      done(error as Error)
      return
    }
    const now = this.#now()
    const own: Hit[] = []
    const shared: Hit[] = []
    for (const hit of hits) {
      if (hit.rule.shared === null) own.push(hit)
      else shared.push(hit)
    }
    const finish = (failure?: Error) => this.#finish(hits, request, reply, done, failure)
    if (!takeAll(own, now, this.#quotaOf) || shared.length === 0) {
      finish()
      return
    }
    this.#takeShared(hits, shared, true, finish, count)
  }

  /** Takes the units of limits in Redis: of leases, else by a question. With `mayWait`, waits for leases on their way. */
  #takeShared(
    hits: readonly Hit[],
    shared: readonly Hit[],
    mayWait: boolean,
    finish: (failure?: Error) => void,
    count: Count
  ): void {
    const now = this.#now()
    const asked = shared.filter((hit) => !hit.isLeased && !takeOfLease(hit, now))
    const again = (mayWait: boolean) => this.#takeShared(hits, shared, mayWait, finish, count)
    if (asked.length === 0) {
      count('lease')
      finish()
    } else if (this.#refusals.apply(asked, now)) {
      count('known')
      giveBack(hits, now, this.#quotaOf)
      finish()
    } else if (!mayWait || !asked.some(({ rule, key }) => rule.leases?.wait(key, again))) {
      this.#link!.ask(asksFor(asked), false, (answers) => {
        const failure = answers === null ? this.#decideAlone(asked, count) : this.#learn(asked, answers, count)
        if (failure !== undefined || asked.some(refuses)) giveBack(hits, this.#now(), this.#quotaOf)
        try {
          finish(failure)
        } finally {
          endQuestions(asked)
        }
      })
    }
  }

  /**
   * Applies limits before authentication of which Redis is asked after it: refuses if a refusal of Redis still holds. While Redis
   * does not respond, this node decides at once, and calls back with true.
   */
  admitFirst(
    rules: readonly Rule[],
    request: FastifyRequest,
    reply: FastifyReply,
    done: (error: Error | undefined, isDecided: boolean) => void
  ): void {
    if (this.#link!.isUp) {
      this.#refuseKnown(rules, request, reply, (error) => done(error, false))
      return
    }
    // A request is counted once: here, or after authentication.
    let decidedBy: Step | undefined
    const finish = (error?: Error) => {
      if (error !== undefined && decidedBy !== undefined) this.#count(decidedBy)
      done(error, true)
    }
    this.admit(rules, request, reply, finish, (step) => (decidedBy = step))
  }

  /** Calls back with an error if a refusal of Redis still holds. Asks nothing, counts nothing. */
  #refuseKnown(rules: readonly Rule[], request: FastifyRequest, reply: FastifyReply, done: Done): void {
    let hits: Hit[]
    try {
      hits = hitsOf(rules, request, null)
    } catch (error) {
      done(error as Error)
      return
    }
    if (!this.#refusals.applyFirst(hits, this.#now())) {
      done()
      return
    }
    this.#count('known')
    this.#finish(hits, request, reply, done)
  }

  /**
   * Takes the units that the responses of services state, and removes the header that states them. A composed route gets several
   * responses: the units of the request, `cost`, are part of the first ones.
   */
  #chargeResponse(hits: readonly Hit[], request: FastifyRequest): void {
    const { onServiceResponse } = request
    const paid = hits.map(({ rule }) => rule.cost)
    request.onServiceResponse = (given, status) => {
      const headers = { ...(onServiceResponse?.(given, status) ?? given) }
      const asks: Ask[] = []
      for (const [i, { rule, key }] of hits.entries()) {
        const { costHeader, quota, algorithm, shared } = rule
        const stated = (request.serviceHeaders ?? headers)[costHeader!]
        const units = typeof stated === 'string' && /^\d[\d.e+]*$/i.test(stated) ? Math.ceil(Number(stated)) : 0
        const unpaid = units - paid[i]!
        if (!Number.isNaN(unpaid)) paid[i] = Math.max(0, -unpaid)
        if (!(unpaid > 0)) continue
        const more = Math.min(unpaid, quota.burst)
        algorithm.add(rule.entries.get(key, this.#now()), more, this.#quotaOf(rule))
        if (shared === null) continue
        asks.push({ key: shared + key, algorithm, quota, cost: more, wanted: more, isShadow: false })
      }
      if (asks.length > 0) this.#link!.ask(asks, true, () => {})
      for (const { rule } of hits) if (!rule.keepsCostHeader) delete headers[rule.costHeader!]
      return headers
    }
  }

  /** Takes the units of limits in Redis, for a request that another concern has refused. */
  charge(rules: readonly Rule[], request: FastifyRequest): void {
    const hits = hitsOf(rules, request, null)
    if (hits.length === 0) return
    this.#link!.ask(asksFor(hits), true, (answers) => {
      if (answers !== null) this.#learn(hits, answers, this.#count)
      else this.#decideAlone(hits, this.#count)
      endQuestions(hits)
    })
  }

  /** Stores what Redis answers, so that this node continues from there if Redis fails. */
  #learn(hits: readonly Hit[], answers: readonly Answer[], count: Count): undefined {
    count('redis')
    const now = this.#now()
    for (const [i, hit] of hits.entries()) {
      const { taken, remaining, reset, wait } = answers[i]!
      Object.assign(hit, { remaining, reset, wait })
      const { rule, key } = hit
      const { leases, quota } = rule
      const leased = taken - rule.cost
      if (leases !== null && leased > 0) {
        hit.remaining += leased
        // A bucket has no window: units that it has given up are not used twice, whenever they are used.
        const until = rule.algorithm.tag === 't' ? Number.POSITIVE_INFINITY : now + Math.min(reset, quota.window)
        leases.add(key, { left: leased, until, remaining, resetAt: now + reset }, now)
      }
      this.#refusals.learn(hit, now)
      const part = this.#partOf(rule)
      const entry = rule.entries.get(key, now)
      const used = ((rule.quota.burst - remaining) * part.burst) / rule.quota.burst
      if (rule.algorithm.tag === 't') entry.until = now + reset
      else Object.assign(entry, { value: used, prev: 0, until: rule.algorithm.tag === 'f' ? now + reset : entry.until })
    }
  }

  /** Decides while Redis does not respond. */
  #decideAlone(hits: readonly Hit[], count: Count): Error | undefined {
    const limited = hits.filter(({ rule }) => rule.onFailure === 'share')
    const isClosed = hits.some(({ rule }) => rule.onFailure === 'closed' && !rule.isShadow)
    count(isClosed ? 'closed' : limited.length === 0 ? 'open' : 'share')
    for (const hit of hits) hit.remaining = hit.rule.quota.burst
    if (isClosed) return new Unavailable()
    takeAll(limited, this.#now(), this.#partOf)
    return undefined
  }

  readonly #quotaOf: QuotaOf = (rule) => (rule.isDivided ? this.#partOf(rule) : rule.quota)

  /** Returns this node's part of a limit: the limit divided by the number of nodes, but enough for one request. */
  readonly #partOf: QuotaOf = ({ quota, cost }) => {
    const nodes = this.#nodes()
    if (nodes <= 1) return quota
    const part = (units: number) => Math.max(units / nodes, Math.min(cost, units))
    return { ...quota, max: part(quota.max), burst: part(quota.burst) }
  }

  #finish(hits: readonly Hit[], request: FastifyRequest, reply: FastifyReply, done: Done, failure?: Error): void {
    if (failure !== undefined) {
      request.refusalReason = 'rate_store' satisfies LimitReason
      reply.header('retry-after', 1)
      done(failure)
      return
    }
    let worst: Hit | undefined
    let hasCosts = false
    for (const hit of hits) {
      if (hit.rule.costHeader !== undefined) hasCosts = true
      if (hit.wait === 0) continue
      if (hit.rule.isShadow) this.#record(request, 'JW_RATE_LIMITED', reasonFor(hit, request))
      else if (hit.wait > (worst?.wait ?? 0)) worst = hit
    }
    if (worst === undefined) {
      for (const hit of hits) if (!hit.rule.isShadow && !hit.rule.isSecond) setHeaders(reply, hit)
      if (hasCosts)
        this.#chargeResponse(
          hits.filter(({ rule }) => rule.costHeader !== undefined),
          request
        )
      done()
      return
    }
    for (const hit of hits) if (refuses(hit)) setHeaders(reply, { ...hit, remaining: 0 })
    const after = Math.max(1, seconds(worst.wait))
    reply.header('retry-after', after)
    request.refusalReason = reasonFor(worst, request)
    done(new RateLimited(after === 1 ? '1 second' : `${after} seconds`))
  }
}
