/** Verification of the tokens of requests, with a cache of verified tokens. */
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { Verifier } from './isolated-plugin.ts'
import type { KeySet } from './jwks.ts'
import type { TokenCache } from './token-cache.ts'
import type { Verifications } from './verifier.ts'

export type Claims = Readonly<Record<string, unknown>>
/** Returns the claims of the token of a request; throws or rejects if the token is not valid. */
export type Verify = (token: string, request: FastifyRequest) => Claims | Promise<Claims>

/** A token that was verified by a key of a set. */
interface Verified {
  readonly claims: Claims
  /** PEM. */
  readonly key: string
}

/** Returns the verification with one key for all tokens. A cached token is not even decoded. */
export function verifyByKey(
  { verify }: Verifier,
  known: TokenCache<Claims>,
  clockSkew: number,
  date: Clock['date']
): Verify {
  return (token) => {
    const now = date()
    const remembered = known.get(token, now)
    if (remembered !== undefined) return remembered
    const claims = verify(token)
    // A token whose `iat` is in the future is refused by the caller, so it must not be cached.
    if (!isIssuedInFuture(claims.iat, now + clockSkew)) known.set(token, claims, Number(claims.exp) * 1000 + clockSkew)
    return claims
  }
}

/** Returns the verification with a key set. A cached token is refused once its key has left the set. */
export function verifyByKeySet(
  verifier: Verifier,
  keySet: KeySet,
  verifications: Verifications,
  known: TokenCache<Verified>,
  clockSkew: number,
  date: Clock['date']
): Verify {
  return (token, request) => {
    const remembered = known.get(token, date())
    if (remembered !== undefined && keySet.holds(remembered.key)) return remembered.claims
    const verification = { token, key: undefined as string | undefined }
    verifications.set(request, verification)
    return verifier.verifyRequest(request).then((claims) => {
      const { key } = verification
      if (key !== undefined && !isIssuedInFuture(claims.iat, date() + clockSkew)) {
        known.set(token, { claims, key }, Number(claims.exp) * 1000 + clockSkew)
      }
      return claims
    })
  }
}

/** Returns whether `iat` is in the future or not a number. @fastify/jwt does not check `iat`. */
export function isIssuedInFuture(iat: unknown, now: number): boolean {
  return iat !== undefined && !(typeof iat === 'number' && iat * 1000 <= now)
}
