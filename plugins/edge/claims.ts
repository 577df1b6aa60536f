/** Claims of a token: values by path, scopes, and the challenge of a caller that lacks them. */
import type { FastifyRequest } from 'fastify'
import type { TUnsafe } from 'typebox'
import { Either } from '../../config/schema/kit.ts'
import Type from '../../config/schema/type.ts'

/** Returns the claims of a request's token, `request.user`. @fastify/jwt declares the property, and may not be there. */
export const claimsOf = (request: FastifyRequest): unknown => Reflect.get(request, 'user')

/**
 * Returns the value of a claim by its name, or by a path through nested claims (`realm_access.roles`, as in Keycloak's
 * tokens); undefined if there is none. At each level, a claim whose name itself contains dots, such as a URL, wins.
 */
export function claimAt(claims: unknown, path: string): unknown {
  if (typeof claims !== 'object' || claims === null) return undefined
  if (Object.hasOwn(claims, path)) return Reflect.get(claims, path)
  for (let dot = path.lastIndexOf('.'); dot > 0; dot = path.lastIndexOf('.', dot - 1)) {
    const name = path.slice(0, dot)
    const inner = Object.hasOwn(claims, name) ? claimAt(Reflect.get(claims, name), path.slice(dot + 1)) : undefined
    if (inner !== undefined) return inner
  }
  return undefined
}

/** A value that a rule compares with a claim. Types count: `true` is not `"true"`, and 7 is not `"7"`. */
export type ClaimValue = string | number | boolean

const value = Either(
  { type: 'string' },
  // An expression would equal no claim, so that a rule which denies would be open.
  Type.String({ pattern: '^(?!/\\^.*\\$/$)', expected: 'a text that is no expression' }),
  Either({ type: 'boolean' }, Type.Boolean(), Type.Number())
) as TUnsafe<ClaimValue>

/** Schema of required claims: values by name or path. */
export const Claims = (description: string) =>
  Type.Record(Type.String(), Either({ type: 'array' }, Type.Array(value, { minItems: 1 }), value), {
    minProperties: 1,
    description
  })

/** Schema of required scopes: tokens of RFC 6749, 3.3, which need no escape in a challenge. */
export const Scopes = (description: string) =>
  Type.Array(Type.String({ pattern: '^[!#-[\\]-~]+$', expected: 'a scope, without blanks and quotes' }), {
    minItems: 1,
    description
  })

/** Returns whether a claim has one of these values, or is a list with one of them. */
export function hasClaim(claims: unknown, path: string, wanted: ClaimValue | readonly ClaimValue[]): boolean {
  const found = claimAt(claims, path)
  const values: readonly unknown[] = Array.isArray(wanted) ? wanted : [wanted]
  return Array.isArray(found) ? found.some((item) => values.includes(item)) : values.includes(found)
}

const noScopes: ReadonlySet<string> = new Set()
/** Scopes by claims: a cached token has the same frozen claims each time. */
const knownScopes = new WeakMap<object, ReadonlySet<string>>()

/** Returns the scopes of a token: of `scope` (RFC 8693) and `scp`, as a text with blanks or as a list. */
export function scopesOf(claims: unknown): ReadonlySet<string> {
  if (typeof claims !== 'object' || claims === null) return noScopes
  const known = knownScopes.get(claims)
  if (known !== undefined) return known
  const texts = ['scope', 'scp'].flatMap((name) => [claimAt(claims, name)].flat())
  const scopes = new Set(texts.flatMap((text) => (typeof text === 'string' ? text.split(' ') : [])))
  if (Object.isFrozen(claims)) knownScopes.set(claims, scopes)
  return scopes
}

/**
 * Returns the realm of a route's challenges: that of its bearer tokens, else that of its first method with a realm. Clients
 * keep tokens by realm (RFC 9110, 11.5), so another one would ask them for another token.
 */
export function realmOf(edge: object): string {
  const tokens = ['jwt', 'introspection'].map((name): unknown => Reflect.get(edge, name))
  const realms = [...tokens, ...Object.values(edge)].map((options: unknown) =>
    typeof options === 'object' && options !== null ? Reflect.get(options, 'realm') : undefined
  )
  return realms.find((realm) => typeof realm === 'string') ?? 'jingwei'
}

/**
 * Returns the `WWW-Authenticate` of a refused request: with a token that is not enough, `insufficient_scope`; without one,
 * no error code (RFC 6750, 3 and 3.1).
 */
export function bearerChallenge(realm: string, hasToken: boolean, scopes: readonly string[] = []): string {
  const error = hasToken ? ', error="insufficient_scope"' : ''
  const scope = scopes.length === 0 ? '' : `, scope="${scopes.join(' ')}"`
  return `Bearer realm="${realm}"${error}${scope}`
}
