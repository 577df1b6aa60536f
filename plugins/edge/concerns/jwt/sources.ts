/** The issuers whose tokens a route accepts, each with its key. */
import type { JwtOptions, TokenSource } from './options.ts'

/** Returns the issuers of `issuers`; else the only one, with the key of the options themselves. */
export const sourcesOf = (options: JwtOptions): readonly TokenSource[] => options.issuers ?? [options]

/** Returns the options with other keys. */
export function withSources(options: JwtOptions, change: (source: TokenSource) => TokenSource): JwtOptions {
  const { issuers } = options
  if (issuers === undefined) return { ...options, ...change(options) }
  return { ...options, issuers: issuers.map((source) => ({ ...change(source), issuer: source.issuer })) }
}

/** Returns whether one of the keys is a shared secret, with which the gateway can sign tokens itself. */
export const hasSecret = (options: JwtOptions): boolean => sourcesOf(options).some(({ secret }) => secret !== undefined)

/** Returns the URL of the metadata of an issuer (OpenID Connect Discovery, 4); null without `discovery`. */
export function metadataUrl({ discovery, issuer }: TokenSource): string | null {
  if (discovery === undefined) return null
  return discovery === true ? `${String(issuer).replace(/\/$/, '')}/.well-known/openid-configuration` : discovery
}
