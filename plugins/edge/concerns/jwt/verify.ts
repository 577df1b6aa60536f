/** Verification of the tokens of requests, with a cache of verified tokens. */
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { Verifier } from './isolated-plugin.ts'
import type { KeySet } from './jwks.ts'
import { TokenInvalid } from './reasons.ts'
import type { TokenCache } from './token-cache.ts'
import type { Verifications } from './verifier.ts'

export type Claims = Readonly<Record<string, unknown>>

/** The verification of the tokens of a route. */
export interface TokenVerifier {
  /** Returns the claims of the token of a request; throws or rejects if the token is not valid. */
  verify(token: string, request: FastifyRequest): Claims | Promise<Claims>
  /** Returns whether the token is valid, by the cache. */
  isKnown(token: string): boolean
}

/** A verified token. */
export interface Verified {
  readonly claims: Claims
  /** Index of its issuer. */
  readonly issuer: number
  /** PEM of the key of a set that verified it; null if all tokens of the issuer have one key. */
  readonly key: string | null
}

/** An issuer whose tokens are verified by one key, or by those of a set. */
export interface IssuerVerifier {
  readonly verifier: Verifier
  readonly keySet: KeySet | null
  readonly verifications: Verifications
}

/**
 * Returns the verification of tokens. `byIssuer` has the index of each issuer by name; null if there is only one. A cached
 * token is not even decoded; it is refused once its key has left the set.
 */
export function verifierOf(
  issuers: readonly IssuerVerifier[],
  byIssuer: ReadonlyMap<unknown, number> | null,
  known: TokenCache<Verified>,
  clockSkew: number,
  date: Clock['date']
): TokenVerifier {
  function keep(token: string, verified: Verified): void {
    const { exp, iat } = verified.claims
    // A token whose `iat` is in the future is refused by the caller, so it must not be cached.
    if (isIssuedInFuture(iat, date() + clockSkew)) return
    known.set(token, verified, exp === undefined ? Number.POSITIVE_INFINITY : Number(exp) * 1000 + clockSkew)
  }

  function cached(token: string): Claims | null {
    const remembered = known.get(token, date())
    if (remembered === undefined) return null
    const { keySet } = issuers[remembered.issuer]!
    return keySet === null || keySet.holds(remembered.key!) ? remembered.claims : null
  }

  function verify(token: string, request: FastifyRequest): Claims | Promise<Claims> {
    const remembered = cached(token)
    if (remembered !== null) return remembered
    const issuer = byIssuer === null ? 0 : byIssuer.get(issuerOf(token))
    if (issuer === undefined) throw new TokenInvalid('jwt_issuer')
    const { verifier, keySet, verifications } = issuers[issuer]!
    if (keySet === null) {
      const claims = verifier.verify(token)
      keep(token, { claims, issuer, key: null })
      return claims
    }
    const verification: { token: string; key?: string } = { token }
    verifications.set(request, verification)
    return verifier.verifyRequest(request).then((claims) => {
      const { key } = verification
      if (key !== undefined) keep(token, { claims, issuer, key })
      return claims
    })
  }

  return { verify, isKnown: (token) => cached(token) !== null }
}

/** Returns the claim `iss` of a token that is not verified yet. */
function issuerOf(token: string): unknown {
  try {
    return JSON.parse(Buffer.from(token.split('.', 2)[1]!, 'base64url').toString()).iss
  } catch {
    throw new TokenInvalid('jwt_malformed')
  }
}

/** Returns whether `iat` is in the future or not a number. @fastify/jwt does not check `iat`. */
export function isIssuedInFuture(iat: unknown, now: number): boolean {
  return iat !== undefined && !(typeof iat === 'number' && iat * 1000 <= now)
}
