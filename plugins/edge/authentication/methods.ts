/**
 * Authentication of a route by one or several methods. Each concern that authenticates adds its method to the route, and
 * attaches the hook that it gets at its own position. The hook of the last method decides, so concerns need not know each other.
 *
 * Credentials that were not verified never reach the service: where one of several methods suffices, those of the others are
 * removed, since a service cannot tell which ones the gateway has verified.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import type { AuthenticationMethod } from '../../../config/concern.ts'
import { edgeRouteOf } from '../attach.ts'
import type { ConcernContext } from '../concern.ts'
import type { RecordRefusal } from '../concern-refusals.ts'
import { countedBy, refusalRecorder } from '../concern-refusals.ts'
import { consumerOf } from '../consumers/consumer.ts'
import { clientAddressOf } from '../protocol/client-address.ts'
import { removeBearer, removeHeader } from './credentials.ts'
import { FailureLimit } from './failures.ts'
import type { Method, Refusal } from './method.ts'
import { NoCredentials } from './method.ts'
import { defaults } from './options.ts'
import { CredentialsMissing } from './refused.ts'
import type { Done, Hook } from './shadow-methods.ts'
import { asShadow, RouteMethods, withoutEffects } from './shadow-methods.ts'

type AnyMethod = Method<unknown>
type Outcome = 'accepted' | 'absent' | Refusal

const Limited = createError('JW_AUTH_LIMITED', 'Too many failed attempts to authenticate from this address', 429)

/** Reasons for the access log. A closed list, documented in plugins/edge/access-log/README.md. */
export const authenticationReasons = ['auth_missing', 'auth_failures'] as const

/** The methods of one route, in their order. */
class Methods {
  readonly list: AnyMethod[] = []
  /** Recorders of refusals by a method; for null, of requests without credentials for any of several methods. */
  readonly #recorders = new Map<AnyMethod | null, RecordRefusal>()
  readonly #isAll: boolean
  readonly #anonymous: string | undefined
  readonly #failures: Readonly<Record<'guesses' | 'forgeries', FailureLimit | null>>
  readonly #consumers: ConcernContext['consumers']
  readonly #route: RouteMethods<Methods>
  /** Outcomes of the requests that have passed some of several methods. */
  readonly #outcomes = new WeakMap<FastifyRequest, Map<AnyMethod, Outcome>>()

  constructor(
    routeOptions: RouteOptions,
    context: ConcernContext,
    route: RouteMethods<Methods>,
    counts = 'auth-failures'
  ) {
    const { stores, clock, consumers, meter } = context
    const { name, edge } = edgeRouteOf(routeOptions.config)!
    const { require, anonymous, failures } = edge.authentication || defaults
    this.#recorders.set(null, refusalRecorder(meter, 'authentication', name))
    this.#isAll = require === 'all'
    this.#anonymous = anonymous
    this.#consumers = consumers
    this.#route = route
    const limitOf = (name: string) =>
      failures ? stores.claim(`jingwei.${name}`, failures, () => new FailureLimit(failures, clock.now)) : null
    this.#failures = { guesses: limitOf(counts), forgeries: limitOf(`${counts}-of-forgeries`) }
  }

  /** Adds a method; returns its hook. */
  add(method: AnyMethod, { counts }: AuthenticationMethod, record: RecordRefusal): Hook {
    this.list.push(method)
    this.#recorders.set(method, record)
    const failures = counts === null ? null : this.#failures[counts]
    return (request, reply, done) => {
      if (this.list.length > 1 && !this.#isAll && this.#isAccepted(request))
        return this.#next(method, request, reply, done)
      const outcome = this.#attempt(method, request, reply, failures)
      if (!(outcome instanceof Promise)) return this.#take(outcome, method, request, reply, done)
      outcome.then((found) => this.#take(found, method, request, reply, done), done)
    }
  }

  #attempt(
    method: AnyMethod,
    request: FastifyRequest,
    reply: FastifyReply,
    failures: FailureLimit | null
  ): Outcome | Promise<Outcome> {
    try {
      const credentials = method.find(request)
      if (credentials === null) return 'absent'
      const limited = limitedBy(failures, request)
      if (limited !== null && !method.isKnown?.(credentials)) return limited
      const verified = method.verify(credentials, request, reply)
      if (verified instanceof Promise) return settled(verified, method, request, failures)
      addSuccess(failures, request)
      return 'accepted'
    } catch (error) {
      return error instanceof NoCredentials ? 'absent' : refused(error, method, request, failures)
    }
  }

  #isAccepted(request: FastifyRequest): boolean {
    const outcomes = this.#outcomes.get(request)
    return outcomes !== undefined && [...outcomes.values()].includes('accepted')
  }

  /** Records the outcome of a method, and ends the request if it decides. */
  #take(outcome: Outcome, method: AnyMethod, request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const isAlone = this.list.length === 1
    if (isAlone && outcome === 'accepted') {
      this.#route.remove(request, () => removeVerified(method, request))
      done()
      return
    }
    const outcomes = this.#outcomes.get(request) ?? new Map<AnyMethod, Outcome>()
    outcomes.set(method, outcome)
    if (isAlone) {
      this.#decide(outcomes, request, reply, done)
      return
    }
    this.#outcomes.set(request, outcomes)
    const fails = outcome === 'absent' ? this.#anonymous === undefined && !method.isOptional : outcome !== 'accepted'
    if (this.#isAll && fails) this.#decide(outcomes, request, reply, done)
    else this.#next(method, request, reply, done)
  }

  /** Leaves the decision to the next method; the last one decides. */
  #next(method: AnyMethod, request: FastifyRequest, reply: FastifyReply, done: Done): void {
    if (this.list.at(-1) === method) this.#decide(this.#outcomes.get(request)!, request, reply, done)
    else done()
  }

  #decide(outcomes: ReadonlyMap<AnyMethod, Outcome>, request: FastifyRequest, reply: FastifyReply, done: Done): void {
    const accepted = [...outcomes.values()].filter((outcome) => outcome === 'accepted').length
    const refusals = [...outcomes].flatMap(([method, outcome]) =>
      typeof outcome === 'object' ? [{ method, refusal: outcome }] : []
    )
    const spared = this.list.filter((method) => method.isOptional && outcomes.get(method) === 'absent').length
    const isSpared = this.#isAll ? accepted + spared === this.list.length : spared > 0 && refusals.length === 0
    const isAnonymous = accepted === 0 && this.#anonymous !== undefined
    if (accepted === this.list.length || (accepted > 0 && !this.#isAll) || (isSpared && !isAnonymous)) {
      this.#route.remove(request, () => this.#remove(outcomes, request))
      done()
      return
    }
    if (refusals.length === 0 && accepted === 0 && this.#anonymous !== undefined) {
      this.#route.remove(request, () => {
        for (const method of this.list) method.remove(request, false)
        if (this.list.some(({ removesBearer }) => removesBearer)) removeBearer(request)
      })
      request.consumer ??= this.#consumers.named(this.#anonymous) ?? consumerOf({ id: this.#anonymous })
      done()
      return
    }
    // An outage or a limit says more than that other credentials are wrong.
    const [worst] = refusals.toSorted((a, b) => statusOf(b.refusal) - statusOf(a.refusal))
    const { method, refusal } = worst ?? this.#missing(outcomes, request)
    const { error, reason, challenge } = refusal
    // The hook of the last method refuses for all of them.
    const fail = this.list.length === 1 ? done : countedBy(this.#recorders.get(method)!, request, done)
    request.refusalReason = reason
    if (refusal.respond !== undefined) {
      refusal.respond(reply).catch(fail)
      return
    }
    if (statusOf({ error }) === 401) {
      const challenges = this.list.flatMap((method) => this.#challenge(method, outcomes.get(method)))
      reply.header('www-authenticate', challenges.length === 1 ? challenges[0] : challenges)
    } else if (worst !== undefined && challenge !== undefined) reply.header('www-authenticate', challenge)
    fail(error)
  }

  #remove(outcomes: ReadonlyMap<AnyMethod, Outcome>, request: FastifyRequest): void {
    const isAccepted = (method: AnyMethod) => outcomes.get(method) === 'accepted'
    const kept = this.list.flatMap((method) =>
      isAccepted(method) && isInCarrier(method, request) ? (method.carrier ?? []) : []
    )
    for (const method of this.list) {
      if (isAccepted(method)) method.remove(request, true)
      else if (method.carrier === undefined || !kept.includes(method.carrier)) method.remove(request, false)
      else method.removeOthers?.(request)
    }
    for (const { carrier } of this.list) {
      if (carrier !== undefined && !kept.includes(carrier)) removeHeader(request, carrier)
    }
    if (!kept.includes('authorization') && this.list.some(({ removesBearer }) => removesBearer)) removeBearer(request)
  }

  #challenge(method: AnyMethod, outcome: Outcome | undefined): string[] {
    if (outcome === 'accepted') return []
    const own = typeof outcome === 'object' ? outcome.challenge : undefined
    return [own ?? method.challenge]
  }

  #missing(
    outcomes: ReadonlyMap<AnyMethod, Outcome>,
    request: FastifyRequest
  ): { method: AnyMethod | null; refusal: Refusal } {
    const absent = this.list.filter((method) => outcomes.get(method) === 'absent')
    const refusals = absent.map((method) => ({ method, refusal: method.refusal(null, request) }))
    if (refusals.length === 1) return refusals[0]!
    const redirect = refusals.find(({ refusal }) => refusal.respond)
    return redirect ?? { method: null, refusal: { error: new CredentialsMissing(), reason: 'auth_missing' } }
  }
}

const isInCarrier = (method: AnyMethod, request: FastifyRequest) => method.isInCarrier?.(request) ?? true

/** Removes the credentials of the only method of a route, and others from its carrier. */
function removeVerified(method: AnyMethod, request: FastifyRequest): void {
  const hasOthers = method.carrier !== undefined && !isInCarrier(method, request)
  method.remove(request, true)
  if (hasOthers) removeHeader(request, method.carrier!)
  else if (method.removesBearer && method.carrier === undefined) removeBearer(request)
}

/** Returns the refusal of an address with too many failures. */
function limitedBy(failures: FailureLimit | null, request: FastifyRequest): Refusal | null {
  // The address is not determined while no address is limited.
  if (failures === null || failures.limitsNone) return null
  const retryAfterMs = failures.waitOf(clientAddressOf(request))
  return retryAfterMs === 0 ? null : { error: Object.assign(new Limited(), { retryAfterMs }), reason: 'auth_failures' }
}

function addSuccess(failures: FailureLimit | null, request: FastifyRequest): void {
  if (failures !== null && !failures.isEmpty) failures.addSuccess(clientAddressOf(request))
}

function refused(thrown: unknown, method: AnyMethod, request: FastifyRequest, failures: FailureLimit | null): Refusal {
  const refusal = method.refusal(thrown, request)
  if (refusal.isExcess) failures?.addExcess(clientAddressOf(request))
  // Wrong credentials alone are guesses: an outage and a full queue are not.
  if (failures === null || statusOf(refusal) !== 401 || refusal.isUncounted) return refusal
  const limited = limitedBy(failures, request)
  if (limited === null) failures.add(clientAddressOf(request))
  return limited ?? refusal
}

async function settled(
  verified: Promise<void>,
  method: AnyMethod,
  request: FastifyRequest,
  failures: FailureLimit | null
): Promise<Outcome> {
  const { consumer } = request
  try {
    await verified
  } catch (error) {
    return error instanceof NoCredentials ? 'absent' : refused(error, method, request, failures)
  }
  // Other attempts may have failed meanwhile: a guess in parallel with them must not learn that it is right.
  const limited = limitedBy(failures, request)
  if (limited === null) addSuccess(failures, request)
  else request.consumer = consumer
  return limited ?? 'accepted'
}

const statusOf = ({ error }: Pick<Refusal, 'error'>): number => (error as { statusCode?: number }).statusCode ?? 500

const byRoute = new WeakMap<RouteOptions, RouteMethods<Methods>>()

/** Adds a method to a route, unless it is in shadow mode: then it decides nothing. Returns the method's `onRequest` hook. */
export function authenticateBy<C>(
  method: Method<C>,
  routeOptions: RouteOptions,
  context: ConcernContext,
  shadow: RecordRefusal | null,
  refused: RecordRefusal
): Hook {
  const { authenticates } = context
  if (authenticates === undefined) throw new Error('the definition of a method of authentication lacks "authenticates"')
  // A login has no credentials yet.
  if (routeOptions.config?.ownPath !== undefined) return (_request, _reply, done) => done()
  const route = byRoute.get(routeOptions) ?? new RouteMethods<Methods>()
  byRoute.set(routeOptions, route)
  route.isShadowLast = shadow !== null
  if (shadow === null) {
    route.enforced ??= new Methods(routeOptions, context, route)
    return route.enforced.add(method, authenticates, refused)
  }
  // Failures that refuse nobody must not count where they are enforced.
  const tried = new Methods(routeOptions, context, new RouteMethods(), 'shadow-auth-failures')
  const hook = tried.add(withoutEffects(method), authenticates, shadow)
  return asShadow(hook, route, shadow, method.mayTakeLong === true)
}
