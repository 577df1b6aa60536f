/**
 * Authentication by bearer tokens that an OAuth 2.0 server checks (RFC 7662). Sets `request.user` (the claims) and
 * `request.consumer`.
 */
import { createError } from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { orOff } from '../../../../config/schema/kit.ts'
import { dropHeaders } from '../../../for-plugins.ts'
import { edgeRouteOf } from '../../attach.ts'
import { AuthFailure, AuthServer } from '../../bridge/auth-server.ts'
import { checkAuthServer, checkServiceHeaders } from '../../bridge/check-auth-server.ts'
import { addUpstreamHeader, decorateUpstreamHeaders, headerValue } from '../../bridge/upstream-headers.ts'
import { claimAt } from '../../claims.ts'
import { edgeConcern } from '../../concern.ts'
import type { GivenConsumer } from '../../consumers/consumer.ts'
import type { ConsumerRegistry } from '../../consumers/registry.ts'
import type { Claims } from './introspector.ts'
import { Introspector } from './introspector.ts'
import type { Counters } from './metrics.ts'
import { countersOf } from './metrics.ts'
import type { IntrospectionOptions } from './options.ts'
import { Introspection, Subject } from './options.ts'
import { reasonOf, ruleFor, ScopeMissing, TokenInvalid } from './rules.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const Unavailable = createError('JW_AUTH_UNAVAILABLE', 'The server for authorization is unavailable', 503)

const challenge = 'Bearer realm="jingwei"'

/** Largest response of an endpoint, in bytes. */
const maxResponseSize = 64 * 1024

export default edgeConcern({
  name: 'introspection',
  options: orOff(Introspection),
  provides: ['consumer'],
  credentials: { schema: Subject, ids: (value) => [[value as string, '']] },
  // A service is scripted in tests, a URL is not.
  isolate: (options) => options.url === undefined && options,
  check(options, at, checked) {
    checkAuthServer(options, at, checked)
    const headers = Object.entries(options.forward ?? {})
    if (checked.report.usable(`${at}/forward`)) checkServiceHeaders(headers, `${at}/forward`, checked)
  },
  async plugin(fastify, { stores, meter, log, clock, consumers }) {
    decorateUpstreamHeaders(fastify)

    return (options, routeOptions) => {
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
      return { onRequest: authenticate(options, introspector, countersOf(meter, name), consumers, clock.date) }
    }
  }
})

type Done = (error?: Error) => void

function authenticate(
  options: IntrospectionOptions,
  introspector: Introspector,
  count: Counters,
  consumers: ConsumerRegistry,
  date: () => number
) {
  const { maxTokenSize, scopes } = options
  const checkClaims = ruleFor(options, date)
  const forward = Object.entries(options.forward ?? {})

  function accept(request: FastifyRequest, claims: Claims | null): void {
    if (claims === null) throw new TokenInvalid('introspection_inactive')
    checkClaims(claims)
    request.user = claims
    const id = claimAt(claims, options.consumer)
    if (typeof id === 'string' && id !== '') request.consumer = consumerFor(id, consumers)
    for (const [claim, header] of forward) {
      const value = headerValue(claimAt(claims, claim))
      if (value !== undefined) addUpstreamHeader(request, header, value)
    }
  }

  // A callback instead of an await: most tokens are cached, and need no asynchronous step.
  return (request: FastifyRequest, reply: FastifyReply, done: Done): void => {
    const refuse = (error: unknown) => done(refusal(error, request, reply, scopes))
    try {
      const token = bearerToken(request, maxTokenSize)
      const result = introspector.introspect(token, request, count.cached)
      if (result instanceof Promise) {
        result
          .then((claims) => {
            count.asked(claims !== null)
            return accept(request, claims)
          })
          .then(
            () => done(),
            (error) => {
              if (error instanceof AuthFailure) count.failed()
              refuse(error)
            }
          )
        return
      }
      accept(request, result)
    } catch (error) {
      refuse(error)
      return
    }
    done()
  }
}

/** Characters of a bearer token (RFC 6750, 2.1). */
const bearer = /^bearer +([-._~+/0-9A-Za-z]+=*) *$/i

/** Returns the token. Throws unless the request has exactly one Authorization header, with a bearer token of allowed size. */
function bearerToken({ headers, raw }: FastifyRequest, maxTokenSize: number): string {
  const { authorization } = headers
  if (authorization === undefined || !/^bearer /i.test(authorization)) throw new TokenMissing()
  const names = raw.rawHeaders.filter((text, index) => index % 2 === 0 && text.toLowerCase() === 'authorization')
  if (names.length > 1) throw new TokenInvalid('introspection_repeated')
  const token = authorization.length > maxTokenSize + 'bearer '.length ? undefined : bearer.exec(authorization)?.[1]
  if (token === undefined) throw new TokenInvalid('introspection_token')
  return token
}

/** Returns the error for the client, and sets `WWW-Authenticate`. The reason goes to the log. */
function refusal(error: unknown, request: FastifyRequest, reply: FastifyReply, scopes: readonly string[] = []): Error {
  if (error instanceof AuthFailure) {
    request.refusalReason = reasonOf[error.reason]
    return Object.assign(new Unavailable(), { cause: error.cause })
  }
  const about = (code: string) => `${challenge}, error="${code}", error_description="${(error as Error).message}"`
  if (error instanceof ScopeMissing) {
    request.refusalReason = 'introspection_scope'
    reply.header('www-authenticate', `${about('insufficient_scope')}, scope="${scopes.join(' ')}"`)
  } else if (error instanceof TokenInvalid) {
    request.refusalReason = error.reason
    reply.header('www-authenticate', about('invalid_token'))
  } else if (error instanceof TokenMissing) {
    request.refusalReason = 'introspection_missing'
    // RFC 6750, 3.1: no error code if the request had no token.
    reply.header('www-authenticate', challenge)
  }
  return error as Error
}

/** Returns the consumer for the name in a token. It is never the declared consumer of that name by chance. */
function consumerFor(name: string, consumers: ConsumerRegistry): GivenConsumer {
  const declared = consumers.find('introspection', name)
  if (declared !== undefined) return declared.consumer
  return { id: consumers.named(name) === undefined ? name : `introspection|${name}` }
}
