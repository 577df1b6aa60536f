/**
 * Names of consumers. A `sub` is unique for its issuer alone (RFC 7519, 4.1.2): where the routes accept tokens of
 * several issuers, the issuer is part of the name. So limits, hashes, splits and shared responses tell the two apart.
 */
import type { JwtOptions } from './options.ts'

/** Returns who issues the tokens that these options accept: the issuers by name, or the holder of the key. Secret. */
export function issuersOf({ issuer, secret, publicKey, jwks }: JwtOptions): readonly string[] {
  return issuer === undefined ? [`key ${secret ?? publicKey ?? jwks}`] : [issuer].flat()
}

/** Returns whether a consumer's name includes its issuer; `jwts` are the options in force on the routes. */
export function namesIncludeIssuer(jwts: readonly JwtOptions[]): boolean {
  return new Set(jwts.flatMap(issuersOf)).size > 1
}

/** `ISSUER|SUB`; the first `|` ends the issuer. */
export function qualifiedName(issuer: string, sub: string): string {
  return `${issuer.replaceAll('|', '%7C')}|${sub}`
}
