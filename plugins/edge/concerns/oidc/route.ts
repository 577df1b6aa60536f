/** The hooks of routes with a login, and of the paths that it serves. */
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import { mountPoint } from '../../../../config/path-reading.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { edgeRouteOf } from '../../attach.ts'
import { headerValues, queryValues, removeHeader } from '../../authentication/credentials.ts'
import type { Method } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { tokenKeeper } from '../../authentication/verified-token.ts'
import { headerValue, setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import { claimAt } from '../../claims.ts'
import type { ConcernContext } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { consumerFor, namingIn, qualifiedName } from '../../consumers/issuers.ts'
import type { RouteHooks } from '../../route-hooks.ts'
import type { Cookies } from './cookies.ts'
import { cookieRemoval } from './cookies.ts'
import { OidcFailure } from './failures.ts'
import { countersOf, watchProviders } from './metrics.ts'
import { isNavigation } from './navigation.ts'
import type { OidcOptions } from './options.ts'
import { partyOf } from './party-of.ts'
import type { Provider } from './provider.ts'
import type { RelyingParty } from './relying-party.ts'
import type { Session, SessionStore } from './session.ts'
import { endOf } from './session.ts'

/** The logins of one configuration. */
export class Logins {
  readonly #context: ConcernContext
  readonly #prefix: string
  readonly #cookies = new Map<string, Cookies>()
  readonly #providers = new Map<string, Provider>()
  readonly #stores = new Set<SessionStore>()
  /** Hook that removes the cookies of all sessions and logins from the request to the service. */
  readonly removeCookies = cookieRemoval(this.#cookies)

  constructor(fastify: FastifyInstance, context: ConcernContext) {
    this.#context = context
    this.#prefix = mountPoint(fastify)
    watchProviders(context.meter, this.#providers)
  }

  /** Connects to the stores of sessions. */
  connect(): void {
    for (const store of this.#stores) store.connect()
  }

  hooksOf(
    options: OidcOptions,
    routeOptions: RouteOptions,
    shadow: RecordRefusal | null,
    countRefusal: RecordRefusal
  ): RouteHooks {
    const { name } = edgeRouteOf(routeOptions.config)!
    const party = partyOf(options, this.#context, this.#prefix)
    const { cookies, provider, store } = party.parts
    this.#stores.add(store)
    this.#cookies.set(cookies.name, cookies)
    this.#providers.set(options.issuer, provider)
    if (options.forward !== undefined) dropHeaders(routeOptions, Object.values(options.forward))
    const count = countersOf(this.#context.meter, name)
    const serve = ownPathOf(party, options, routeOptions, count.login)
    if (serve !== null) return { onRequest: serve }

    const replies = new WeakMap<FastifyRequest, FastifyReply>()
    const accept = accepted(options, this.#context, shadow !== null, tokenKeeper(routeOptions))
    const method: Method<string> = {
      challenge: `Cookie realm="${options.realm}"${options.loginPath === undefined ? '' : `, login="${options.loginPath}"`}`,
      removesBearer: !options.keepAuthorization,
      find: (request) => cookies.session(request),
      async verify(value, request) {
        try {
          const session = await load(party, value, request, replies.get(request)!)
          count.session(session.isRefreshed ? 'refreshed' : 'valid')
          accept(request, session.session)
        } catch (error) {
          count.session(error instanceof OidcFailure && error.isOutage ? 'failed' : 'invalid')
          throw error
        }
      },
      refusal(error, request) {
        const failure = error === null ? new OidcFailure('oidc_missing') : (error as Error)
        if (!(failure instanceof OidcFailure)) return { error: failure, reason: null }
        if (failure.isOutage) return { error: failure.error, reason: failure.reason }
        const begins = isNavigation(request)
        if (error !== null) cookies.clearSession(request, replies.get(request)!)
        return {
          error: failure.error,
          reason: begins && error === null ? 'oidc_login' : failure.reason,
          ...(begins && {
            respond: (reply: FastifyReply) => {
              countRefusal(request, 'JW_LOGIN_REQUIRED')
              return party.begin(request, reply, request.raw.url!, count.login).catch((thrown: unknown) => {
                count.login('failed')
                throw refused(thrown, request)
              })
            }
          })
        }
      },
      // The hook above removes the cookies from all requests.
      remove() {}
    }
    const authenticate = authenticateBy(method, routeOptions, this.#context, shadow, countRefusal)
    return {
      onRequest: [
        (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => {
          replies.set(request, reply)
          authenticate(request, reply, done)
        },
        this.removeCookies
      ]
    }
  }
}

/** Returns the error for the client; sets the reason for the access line. */
function refused(thrown: unknown, request: FastifyRequest): Error {
  if (!(thrown instanceof OidcFailure)) return thrown as Error
  request.refusalReason = thrown.reason
  return thrown.error
}

/** Returns the hook of a path that the gateway serves itself; null for the paths of the service. */
function ownPathOf(
  party: RelyingParty,
  { callbackPath, loginPath, logout }: OidcOptions,
  { config }: RouteOptions,
  count: Parameters<RelyingParty['begin']>[3]
) {
  const path = config?.ownPath
  if (path === undefined) return null
  const serve = (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    if (path === callbackPath) return party.complete(request, reply).then(() => count('completed'))
    if (path === loginPath) return party.begin(request, reply, queryValues(request, 'return_to')[0] ?? '/', count)
    if (logout && path === logout.backchannelPath) return party.endByProvider(request, reply)
    return party.logout(request, reply)
  }
  return (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void): void => {
    serve(request, reply).catch((error: unknown) => {
      const { log } = request
      if (error instanceof OidcFailure && !error.isOutage) log.info({ reason: error.reason }, `login: ${error.message}`)
      if (path !== callbackPath && path !== loginPath) return done(refused(error, request))
      count('failed')
      done(refused(error, request))
    })
  }
}

/** Returns the valid session of a cookie, refreshed if it is time. Sets a changed cookie on the reply. */
async function load(
  party: RelyingParty,
  value: string,
  request: FastifyRequest,
  reply: FastifyReply
): Promise<{ session: Session; isRefreshed: boolean }> {
  const { options, store, refresher, cookies, clock } = party.parts
  const found = await store.load(value)
  if (found === null) throw new OidcFailure('oidc_session')
  const now = clock.date()
  const end = endOf(found, options.session, now)
  if (end !== null) throw new OidcFailure(end)
  const refreshed = await refresher.refresh(found, value, request.ip)
  const session = refreshed?.session ?? found
  const { expires = Number.POSITIVE_INFINITY } = session
  const isStale = options.forwardAccessToken && now >= expires
  if (isStale && (options.refresh === false || options.refresh.onFailure === 'end')) throw new OidcFailure('oidc_ended')
  const changed = refreshed?.value ?? (await store.touch(session, now))
  if (changed !== null && changed !== value) {
    cookies.setSession(request, reply, changed, party.maxAgeOf(session, now))
  }
  return { session, isRefreshed: refreshed !== null }
}

/** Returns the function that makes the user of a session the caller of a request. */
function accepted(
  { issuer, consumer, forward = {}, forwardAccessToken }: OidcOptions,
  { config, consumers, clock }: ConcernContext,
  isShadow: boolean,
  keep: ReturnType<typeof tokenKeeper>
) {
  const naming = namingIn('oidc', config)
  const headers = Object.entries(forward)
  return (request: FastifyRequest, { claims, accessToken, expires = Number.POSITIVE_INFINITY }: Session): void => {
    Reflect.set(request, 'user', claims)
    const id = claimAt(claims, consumer)
    if (typeof id === 'string' && id !== '') {
      const subject = { sub: id, qualified: qualifiedName(issuer, id), isVerified: true }
      request.consumer = consumerFor('oidc', subject, naming, consumers)
    }
    for (const [claim, header] of headers) {
      const value = headerValue(claimAt(claims, claim))
      if (value !== undefined) setUpstreamHeader(request, header, value)
    }
    // In shadow mode, credentials of the client stay as they are.
    if (!forwardAccessToken || (isShadow && headerValues(request, 'authorization').length > 0)) return
    removeHeader(request, 'authorization')
    if (accessToken === undefined || clock.date() >= expires) return
    setUpstreamHeader(request, 'authorization', `Bearer ${accessToken}`)
    keep?.(request, accessToken)
  }
}
