/** Verifies the tokens of requests, and remembers those that it has verified. */
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { Verifier } from './apart.ts'
import type { KeySet } from './jwks.ts'
import type { TokenCache } from './token-cache.ts'
import { bearer } from './verifier.ts'

export type Claims = Readonly<Record<string, unknown>>
/** Returns the claims of a request's token; throws or rejects if it is not valid. */
export type Verify = (request: FastifyRequest) => Claims | Promise<Claims>

/** A token that was verified by a key of a set. */
interface Verified {
  readonly claims: Claims
  /** PEM. */
  readonly key: string
}

/** With one key for all tokens there is nothing to look up, so a remembered token is not even decoded. */
export function byKey({ verify }: Verifier, known: TokenCache<Claims>, clockSkew: number, date: Clock['date']): Verify {
  return (request) => {
    const token = bearer(request)
    const now = date()
    const remembered = known.get(token, now)
    if (remembered !== undefined) return remembered
    const claims = verify(token)
    // One that is not valid yet, by `iat`, is refused further on; it is not remembered for that.
    if (!issuedLater(claims.iat, now + clockSkew)) known.set(token, claims, Number(claims.exp) * 1000 + clockSkew)
    return claims
  }
}

/** A token is remembered with its key: it is refused once the key has left the set. */
export function bySet(
  verifier: Verifier,
  keySet: KeySet,
  keys: WeakMap<FastifyRequest, string>,
  known: TokenCache<Verified>,
  clockSkew: number,
  date: Clock['date']
): Verify {
  return (request) => {
    const token = bearer(request)
    const remembered = known.get(token, date())
    if (remembered !== undefined && keySet.holds(remembered.key)) return remembered.claims
    return verifier.verifyRequest(request).then((claims) => {
      const key = keys.get(request)
      if (key !== undefined && !issuedLater(claims.iat, date() + clockSkew)) {
        known.set(token, { claims, key }, Number(claims.exp) * 1000 + clockSkew)
      }
      return claims
    })
  }
}

/** @fastify/jwt does not look at `iat`. A claim that is not a number is as wrong as one of the future. */
export function issuedLater(iat: unknown, now: number): boolean {
  return iat !== undefined && !(typeof iat === 'number' && iat * 1000 <= now)
}
