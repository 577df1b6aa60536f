/**
 * Names of consumers. A `sub` is unique only within its issuer (RFC 7519, 4.1.2). If the routes accept tokens of several
 * issuers, the issuer is part of the name, so that limits, hashes, splits and shared responses do not mix up consumers.
 */
import type { JwtOptions } from './options.ts'

/** Returns the issuers whose tokens these options accept. Without a configured issuer, this is the key: keep it secret. */
export function issuersOf({ issuer, secret, publicKey, jwks }: JwtOptions): readonly string[] {
  return issuer === undefined ? [`key ${secret ?? publicKey ?? jwks}`] : [issuer].flat()
}

/** Returns whether a consumer's name includes its issuer; `jwts` are the options in force on the routes. */
export function namesIncludeIssuer(jwts: readonly JwtOptions[]): boolean {
  return new Set(jwts.flatMap(issuersOf)).size > 1
}

/** Returns `ISSUER|SUB`; the first `|` ends the issuer. */
export function qualifiedName(issuer: string, sub: string): string {
  return `${issuer.replaceAll('|', '%7C')}|${sub}`
}
