/** Hooks of a route for its limits, and for those of consumers. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { RecordRefusal } from '../../concern-refusals.ts'
import type { RouteHooks } from '../../route-hooks.ts'
import { enter } from './concurrency.ts'
import type { Done, Limiter } from './limiter.ts'
import type { Limits, Rule } from './rules.ts'

type Hook = (request: FastifyRequest, reply: FastifyReply, done: Done) => void

/** Returns the limits of a request's consumer; null if it has none of its own. */
export type OwnLimits = (request: FastifyRequest) => Limits | null

/**
 * Returns the hooks for all limits of a route. If limits in Redis apply both before and after authentication, Redis is asked
 * once, after it. Before it, requests are refused by earlier refusals; those that authentication refuses are counted last. While
 * Redis does not respond, the limits before authentication apply before it.
 */
export function hooksFor(
  { rules, ceilings }: Limits,
  ownOf: OwnLimits | null,
  limiter: Limiter,
  record: RecordRefusal
): RouteHooks {
  const admit =
    (limits: Limits): Hook =>
    (request, reply, done) =>
      admitTo(limits, limiter, record, request, reply, done)
  const early = rules.filter(({ isLate }) => !isLate)
  const late = rules.filter(({ isLate }) => isLate)
  const earlyCeilings = ceilings.filter(({ isLate }) => !isLate)
  const lateCeilings = ceilings.filter(({ isLate }) => isLate)
  const isShared = ({ shared }: Rule) => shared !== null
  const postponed = late.some(isShared) ? early.filter(isShared) : []
  const first = { rules: early.filter((rule) => !postponed.includes(rule)), ceilings: earlyCeilings }
  const onlyLate = { rules: late, ceilings: lateCeilings }
  const last = { ...onlyLate, rules: [...postponed, ...late] }
  const hooks: RouteHooks = {
    onRequest: isEmpty(first) ? [] : admit(first),
    preParsing: isEmpty(last) ? [] : afterAll(admit(last))
  }
  if (postponed.length === 0) return withOwn(hooks, ownOf, admitterTo(limiter, record))
  const uncounted = new WeakSet<FastifyRequest>()
  const begin = admit(first)
  const joined = new WeakMap<Limits, Limits>()
  /** Returns the limits after authentication of a consumer with limits of its own. */
  const lastWith = (own: Limits): Limits => {
    let all = joined.get(own)
    if (all === undefined) {
      all = { rules: [...postponed, ...own.rules], ceilings: own.ceilings }
      joined.set(own, all)
    }
    return all
  }
  return {
    onRequest(request, reply, done) {
      begin(request, reply, (error) => {
        if (error !== undefined) {
          done(error)
          return
        }
        limiter.admitFirst(postponed, request, reply, (error, isDecided) => {
          if (error === undefined && !isDecided) uncounted.add(request)
          done(error)
        })
      })
    },
    preParsing(request, reply, _payload, done) {
      const isUncounted = uncounted.delete(request)
      const own = ownOf?.(request) ?? null
      const limits = isUncounted ? (own === null ? last : lastWith(own)) : (own ?? onlyLate)
      admitTo(limits, limiter, record, request, reply, done)
    },
    onResponse(request, _reply, done) {
      if (uncounted.delete(request)) limiter.charge(postponed, request)
      done()
    }
  }
}

/**
 * Returns hooks by which the limits of a consumer, if it has its own, take the place of those after authentication. `admit` is
 * called for them.
 */
export function withOwn(
  hooks: RouteHooks,
  ownOf: OwnLimits | null,
  admit: (own: Limits, request: FastifyRequest, reply: FastifyReply, done: Done) => void
): RouteHooks {
  if (ownOf === null) return hooks
  const [usual] = [hooks.preParsing ?? []].flat()
  return {
    ...hooks,
    preParsing(request, reply, payload, done) {
      const own = ownOf(request)
      if (own !== null) admit(own, request, reply, done)
      else if (usual === undefined) done()
      else Reflect.apply(usual, this, [request, reply, payload, done])
    }
  }
}

const isEmpty = ({ rules, ceilings }: Limits) => rules.length === 0 && ceilings.length === 0

const afterAll =
  (hook: Hook): Exclude<RouteHooks['preParsing'], undefined | readonly unknown[]> =>
  (request, reply, _payload, done) =>
    hook(request, reply, done)

export const admitterTo =
  (limiter: Limiter, record: RecordRefusal) =>
  (own: Limits, request: FastifyRequest, reply: FastifyReply, done: Done): void =>
    admitTo(own, limiter, record, request, reply, done)

function admitTo(
  { rules, ceilings }: Limits,
  limiter: Limiter,
  record: RecordRefusal,
  request: FastifyRequest,
  reply: FastifyReply,
  done: Done
): void {
  if (ceilings.length > 0) {
    let refusal: Error | undefined
    try {
      refusal = enter(ceilings, request, reply, record)
    } catch (error) {
      refusal = error as Error
    }
    if (refusal !== undefined) {
      done(refusal)
      return
    }
  }
  if (rules.length === 0) done()
  else limiter.admit(rules, request, reply, done)
}
