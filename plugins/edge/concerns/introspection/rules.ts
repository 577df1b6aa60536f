/** Rules of a route for the claims of active tokens. */
import { createError } from '@fastify/error'
import { undecidedReasons } from '../../bridge/undecided.ts'
import { scopesOf } from '../../claims.ts'
import type { Claims } from './introspector.ts'
import type { IntrospectionOptions } from './options.ts'

/** A closed list, documented in plugins/edge/access-log/README.md. */
export const tokenReasons = [
  'introspection_missing', 'introspection_token', 'introspection_repeated', 'introspection_inactive', 'introspection_type',
  'introspection_expired', 'introspection_not_yet_valid', 'introspection_issuer', 'introspection_audience', 'introspection_scope'
] as const // biome-ignore format: a list

export const failureReasons = undecidedReasons('introspection')

type Reason = (typeof tokenReasons)[number]

/** A refused token. */
export class TokenInvalid extends createError('JW_TOKEN_INVALID', 'The token is not valid', 401) {
  readonly reason: Reason
  /** True if the token has cost a call: a client that goes on with an expired token guesses nothing. */
  readonly isCounted: boolean

  constructor(reason: Reason, isCounted = false) {
    super()
    this.reason = reason
    this.isCounted = isCounted
  }
}

export class ScopeMissing extends createError('JW_INSUFFICIENT_SCOPE', 'The token does not allow this request', 403) {}

/** Returns the function that throws unless the claims of an active token fit the options. */
export function ruleFor({ issuer, audience, scopes = [], clockSkew }: IntrospectionOptions, date: () => number) {
  const issuers = issuer === undefined ? null : [issuer].flat()
  const audiences = audience === undefined ? null : [audience].flat()
  return (claims: Claims): void => {
    const { iss, aud, exp, nbf } = claims
    if (!isAccessToken(claims)) throw new TokenInvalid('introspection_type')
    const now = date()
    // The endpoint checks them, too; a cached response may be older.
    if (exp !== undefined && !(typeof exp === 'number' && exp * 1000 + clockSkew > now)) {
      throw new TokenInvalid('introspection_expired')
    }
    if (nbf !== undefined && !(typeof nbf === 'number' && nbf * 1000 - clockSkew <= now)) {
      throw new TokenInvalid('introspection_not_yet_valid')
    }
    if (issuers !== null && !issuers.includes(iss as string)) throw new TokenInvalid('introspection_issuer')
    if (audiences !== null && ![aud].flat().some((each) => audiences.includes(each as string))) {
      throw new TokenInvalid('introspection_audience')
    }
    const held = scopesOf(claims)
    if (!scopes.every((each) => held.has(each))) throw new ScopeMissing()
  }
}

/** Returns whether a token is an access token to be used as a bearer token. Endpoints also report refresh tokens as active. */
function isAccessToken({ token_type: type, token_use: use, typ }: Claims): boolean {
  if (type !== undefined && !(typeof type === 'string' && /^(?:bearer|access_token)$/i.test(type))) return false
  if (use !== undefined && !(typeof use === 'string' && /^access(?:_token)?$/i.test(use))) return false
  return !(typeof typ === 'string' && /^(?:refresh|offline|id)$/i.test(typ))
}
