/** Tokens as a method of authentication. Sets `request.user` (the claims) and `request.consumer`. */
import { createError } from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { Method, Refusal } from '../../authentication/method.ts'
import type { tokenKeeper } from '../../authentication/verified-token.ts'
import { setUpstreamHeader } from '../../bridge/upstream-headers.ts'
import type { Callers } from './callers.ts'
import type { JwtOptions } from './options.ts'
import type { Found } from './places.ts'
import { Places } from './places.ts'
import { reasonOf, StepUpRequired, TokenInsufficient, TokenInvalid } from './reasons.ts'
import type { Claims, TokenVerifier } from './verify.ts'
import { isIssuedInFuture } from './verify.ts'

const TokenMissing = createError('JW_TOKEN_MISSING', 'A bearer token is required', 401)
const TokenExpired = createError('JW_TOKEN_EXPIRED', 'The token has expired', 401)

/** Returns the method of a route. */
export function tokenMethod(
  options: JwtOptions,
  verifier: TokenVerifier,
  callers: Callers,
  date: Clock['date'],
  keep: ReturnType<typeof tokenKeeper>
): Method<Found> {
  const { clockSkew, maxTokenSize, realm, acrValues, maxAuthAge, keepAuthorization } = options
  const places = new Places(options)
  const challenge = `Bearer realm="${realm}"`
  // RFC 9470, 3.
  const stepUp =
    (acrValues === undefined ? '' : `, acr_values="${acrValues.join(' ')}"`) +
    (maxAuthAge === undefined ? '' : `, max_age="${Math.floor(maxAuthAge / 1000)}"`)

  function accept(request: FastifyRequest, claims: Claims, token: string): void {
    const now = date()
    if (isIssuedInFuture(claims.iat, now + clockSkew)) throw new TokenInvalid('jwt_not_yet_valid')
    const { consumer, headers, boundTo, authUntil } = callers.of(claims)
    if (boundTo !== null && request.clientCertificate?.fingerprint !== boundTo) throw new TokenInvalid('jwt_binding')
    if (now > authUntil) throw new StepUpRequired('jwt_auth_age')
    request.user = claims
    keep?.(request, token)
    // A token without a subject does not take the consumer of another method away.
    if (consumer !== null) request.consumer = consumer
    for (const [header, value] of headers) setUpstreamHeader(request, header, value)
  }

  /** Returns the refusal of a token. The reason goes to the log; the message of the verifier may quote the token. */
  function refusal(error: unknown, { headers: { authorization } }: FastifyRequest): Refusal {
    if (error === null) {
      const isOther = places.carrier !== undefined && authorization !== undefined
      // RFC 6750, 3.1: no error code in the challenge if the request had no token.
      return { error: new TokenMissing(), reason: isOther ? 'jwt_scheme' : 'jwt_missing' }
    }
    const reason = reasonOf(error)
    const about = (code: string, { message }: Error) => `${challenge}, error="${code}", error_description="${message}"`
    if (error instanceof TokenInsufficient) {
      const scope = reason === 'jwt_scope' ? `, scope="${options.scopes?.join(' ')}"` : ''
      return { error, reason, challenge: `${about('insufficient_scope', error)}${scope}` }
    }
    if (error instanceof StepUpRequired) {
      const challenge = about('insufficient_user_authentication', error) + stepUp
      return { error, reason, challenge, isUncounted: true }
    }
    if ((error as { code?: unknown }).code === 'JW_KEYS_UNAVAILABLE') return { error: error as Error, reason: null }
    const refused = reason === 'jwt_expired' ? new TokenExpired() : new TokenInvalid(reason)
    // Honest clients send expired tokens, and tokens for other routes; and only a wrong signature has cost its verification.
    const isUncounted = reason !== 'jwt_signature'
    return { error: refused, reason, challenge: about('invalid_token', refused), isUncounted }
  }

  return {
    challenge,
    ...(places.carrier !== undefined && { carrier: places.carrier }),
    isInCarrier: (request) => places.isInCarrier(request),
    isOptional: options.optional,
    mayTakeLong: true,
    removesBearer: !keepAuthorization,
    find: (request) => places.find(request),
    isKnown: (token) => typeof token === 'string' && token.length <= maxTokenSize && verifier.isKnown(token),
    verify(token, request) {
      if (typeof token !== 'string') throw token
      if (token.length > maxTokenSize) throw new TokenInvalid('jwt_too_large')
      const verified = verifier.verify(token, request)
      // No await: most tokens are cached, and need no asynchronous step.
      if (!(verified instanceof Promise)) return accept(request, verified, token)
      const { user } = request
      return verified.then((claims) => {
        // @fastify/jwt has set it; a token that does not suffice must not.
        request.user = user
        accept(request, claims, token)
      })
    },
    refusal,
    remove: (request, isVerified) => places.remove(request, isVerified),
    removeOthers: (request) => places.removeOthers(request)
  }
}
