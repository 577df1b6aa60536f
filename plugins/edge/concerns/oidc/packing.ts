/**
 * The stored form of a session. An ID token that is kept for the logout has most claims of the session already, so that they are
 * not stored again: cookies and Redis hold only claims that the ID token lacks, or has with other values.
 */

export type Claims = Readonly<Record<string, unknown>>

interface Packable {
  readonly claims: Claims
  readonly idToken?: string
}

/** Claims that are about one token or one response, not about the user. */
const ofToken = new Set(['nonce', 'at_hash', 'c_hash', 's_hash', 'iat', 'exp', 'nbf', 'jti'])

/** Returns the claims of the user. */
export function userClaims(claims: Claims, scope: string | undefined): Claims {
  const own = Object.entries(claims).filter(([name]) => !ofToken.has(name))
  return Object.fromEntries([...(scope === undefined ? [] : [['scope', scope]]), ...own])
}

/** Returns the claims of the user in an ID token, frozen. It was verified when the session was made. */
function claimsIn(idToken: string | undefined): Claims {
  const [, payload] = idToken?.split('.') ?? []
  if (payload === undefined) return {}
  const text = Buffer.from(payload, 'base64url').toString()
  return userClaims(JSON.parse(text, (_key, value: unknown) => Object.freeze(value)) as Claims, undefined)
}

/** Returns the session without the claims that its ID token has. */
export function packed<S extends Packable>(session: S): S {
  const known = claimsIn(session.idToken)
  const isKnown = (name: string, value: unknown) =>
    Object.hasOwn(known, name) && JSON.stringify(known[name]) === JSON.stringify(value)
  const claims = Object.entries(session.claims).filter(([name, value]) => !isKnown(name, value))
  return { ...session, claims: Object.fromEntries(claims) }
}

/** Returns a stored session with all its claims, frozen. */
export function unpacked<S extends Packable>(stored: S): S {
  return Object.freeze({ ...stored, claims: Object.freeze({ ...claimsIn(stored.idToken), ...stored.claims }) })
}
