/**
 * Authentication by bearer tokens that an OAuth 2.0 server checks (RFC 7662). Sets `request.user` (the claims) and
 * `request.consumer`.
 */
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { edgeRouteOf } from '../../attach.ts'
import { hasSeveralAuthorizations, removeHeader } from '../../authentication/credentials.ts'
import type { Method, Refusal } from '../../authentication/method.ts'
import { authenticateBy } from '../../authentication/methods.ts'
import { AuthFailure, AuthServer } from '../../bridge/auth-server.ts'
import { checkAuthServer, checkServiceHeaders, serverText } from '../../bridge/check-auth-server.ts'
import { Undecided } from '../../bridge/undecided.ts'
import { decorateUpstreamHeaders, headerValue, setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import { claimAt } from '../../claims.ts'
import type { ConcernContext } from '../../concern.ts'
import { edgeConcern } from '../../concern.ts'
import { checkSubjects, consumerFor, idOf, namingIn, qualifiedName } from '../../consumers/issuers.ts'
import type { Claims } from './introspector.ts'
import { Introspector } from './introspector.ts'
import type { Counters } from './metrics.ts'
import { countersOf } from './metrics.ts'
import type { IntrospectionOptions } from './options.ts'
import { Introspection, Subject } from './options.ts'
import { ruleFor, ScopeMissing, TokenInvalid } from './rules.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)

/** Largest response of an endpoint, in bytes. */
const maxResponseSize = 64 * 1024

export default edgeConcern({
  name: 'introspection',
  options: orOff(Introspection),
  apiFacts: () => ({
    security: { bearer: { type: 'http', scheme: 'bearer' } },
    responses: { 401: 'The token is missing or not active.', 403: 'The token does not suffice.' }
  }),
  aliases: { 'oauth2Introspection|opaqueToken': 'write edge.introspection' },
  provides: ['consumer', 'claims'],
  hasNoGroups: true,
  authenticates: { counts: 'guesses', scheme: () => 'Bearer' },
  credentials: { schema: Subject, ids: (value) => [[idOf(value), '']] },
  checkAll: (checked) => checkSubjects('introspection', checked),
  // A service is scripted in tests, a URL is not.
  isolate: (options) => options.url === undefined && options,
  check(options, at, checked) {
    checkAuthServer(options, at, checked)
    const headers = Object.entries(options.forward ?? {})
    if (checked.report.usable(`${at}/forward`)) checkServiceHeaders(headers, `${at}/forward`, checked)
  },
  explain: (options, { headers }) =>
    isBearer(headers.authorization ?? '')
      ? `asks ${serverText(options)} whether the token is active, unless that is known`
      : 'finds no bearer token',
  async plugin(fastify, context) {
    const { stores, meter, log, clock } = context
    decorateUpstreamHeaders(fastify)

    return (options, routeOptions, shadow, refused) => {
      const { name } = edgeRouteOf(routeOptions.config)!
      if (options.forward !== undefined) dropHeaders(routeOptions, Object.values(options.forward))
      const { url, service, path = '/', timeout, maxConcurrent } = options
      const { clientId, clientSecret, clientAuth, maxAge, inactiveMaxAge, cacheSize } = options
      const target = { url, service, path, timeout, maxConcurrent, maxResponseSize }
      const endpoint = { clientId, clientSecret, clientAuth, maxAge, inactiveMaxAge, cacheSize }
      const introspector = stores.claim(
        'jingwei.introspection',
        { target, endpoint },
        () => new Introspector(new AuthServer(target, log), endpoint, clock),
        (unclaimed) => unclaimed.close()
      )
      const method = tokenMethod(options, introspector, countersOf(meter, name), context)
      return { onRequest: authenticateBy(method, routeOptions, context, shadow, refused) }
    }
  }
})

function tokenMethod(
  options: IntrospectionOptions,
  introspector: Introspector,
  count: Counters,
  { config, consumers, clock }: ConcernContext
): Method<string> {
  const { maxTokenSize, scopes, realm } = options
  const challenge = `Bearer realm="${realm}"`
  const checkClaims = ruleFor(options, clock.date)
  const forward = Object.entries(options.forward ?? {})
  const naming = namingIn('introspection', config)
  const isVerified = options.issuer !== undefined
  // In place of an issuer.
  const endpoint = serverText(options)

  function accept(request: FastifyRequest, claims: Claims | null): void {
    if (claims === null) throw new TokenInvalid('introspection_inactive')
    checkClaims(claims)
    Reflect.set(request, 'user', claims)
    const id = claimAt(claims, options.consumer)
    if (typeof id === 'string' && id !== '') {
      const subject = { sub: id, qualified: qualifiedName(isVerified ? String(claims.iss) : endpoint, id), isVerified }
      request.consumer = consumerFor('introspection', subject, naming, consumers)
    }
    for (const [claim, header] of forward) {
      const value = headerValue(claimAt(claims, claim))
      if (value !== undefined) setUpstreamHeader(request, header, value)
    }
  }

  async function wait(result: Promise<Claims | null>, request: FastifyRequest, isShared: boolean): Promise<void> {
    const claims = await result.catch((error: unknown) => {
      count.failed()
      throw error
    })
    count.asked(claims !== null)
    if (claims === null && !isShared) throw new TokenInvalid('introspection_inactive', true)
    accept(request, claims)
  }

  return {
    challenge,
    mayTakeLong: true,
    carrier: 'authorization',
    find(request) {
      const { authorization } = request.headers
      if (authorization === undefined) return null
      // Node shows the first field only; the token may be in another one.
      return isBearer(authorization) || hasSeveralAuthorizations(request) ? authorization : null
    },
    verify(authorization, request) {
      if (hasSeveralAuthorizations(request)) throw new TokenInvalid('introspection_repeated')
      const isLong = authorization.length > maxTokenSize + 'bearer '.length
      const token = isLong ? undefined : bearer.exec(authorization)?.[1]
      if (token === undefined) throw new TokenInvalid('introspection_token')
      const { calls } = introspector
      const result = introspector.introspect(token, request, count.cached)
      // No await: most tokens are cached, and need no asynchronous step.
      if (result instanceof Promise) return wait(result, request, introspector.calls === calls)
      accept(request, result)
    },
    refusal: (error) => refusal(error, challenge, scopes),
    remove(request, isVerified) {
      if (!isVerified) removeHeader(request, 'authorization')
    }
  }
}

const isBearer = (authorization: string): boolean => /^bearer /i.test(authorization)

/** Characters of a bearer token (RFC 6750, 2.1). */
const bearer = /^bearer +([-._~+/0-9A-Za-z]+=*) *$/i

/** Returns the refusal for an error. The reason goes to the log. */
function refusal(error: unknown, challenge: string, scopes: readonly string[] = []): Refusal {
  // RFC 6750, 3.1: no error code in the challenge if the request had no token.
  if (error === null) return { error: new TokenMissing(), reason: 'introspection_missing' }
  if (error instanceof AuthFailure) {
    const undecided = new Undecided('introspection', error)
    return { error: undecided, reason: undecided.reason }
  }
  const { message } = error as Error
  const about = (code: string) => `${challenge}, error="${code}", error_description="${message}"`
  if (error instanceof ScopeMissing) {
    const needed = `${about('insufficient_scope')}, scope="${scopes.join(' ')}"`
    return { error, reason: 'introspection_scope', challenge: needed }
  }
  if (error instanceof TokenInvalid) {
    const { reason, isCounted } = error
    return { error, reason, challenge: about('invalid_token'), isUncounted: !isCounted }
  }
  return { error: error as Error, reason: null }
}
