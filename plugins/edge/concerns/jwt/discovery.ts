/** Longest part of a foreign text in a message. */
const most = 200

/** Fault of a URL of metadata where that of a key set is expected. */
export const metadataAsKeySet =
  'these are the metadata of an issuer and no key set: write issuer: ISSUER and discovery: true, or this URL under discovery, in place of jwks'

/** Returns whether a document looks like the metadata of an issuer. */
export const isMetadata = (document: unknown): boolean =>
  typeof (Object(document) as Record<string, unknown>).jwks_uri === 'string'

/** Returns whether a URL is one at which issuers publish their metadata. */
export const isMetadataUrl = (url: string): boolean =>
  /\/\.well-known\/(?:openid-configuration|oauth-authorization-server)(?:\/|$)/.test(new URL(url).pathname)

/**
 * Returns `jwks_uri` of the metadata of an issuer (OpenID Connect Discovery, 4.3; RFC 8414, 3.3). Throws if they are those of
 * another issuer: it could sign tokens in the name of the expected one.
 */
export function keySetUrl(metadata: unknown, issuer: string, metadataUrl: string): string {
  const { issuer: found, jwks_uri: url } = Object(metadata) as Record<string, unknown>
  if (Array.isArray((Object(metadata) as Record<string, unknown>).keys) && found === undefined) {
    throw new Error('this is a key set and no metadata: write jwks: URL in place of discovery')
  }
  if (found !== issuer) {
    throw new Error(`the metadata are of the issuer ${JSON.stringify(found)?.slice(0, most)}, not of "${issuer}"`)
  }
  if (typeof url !== 'string' || !/^https?:/i.test(url) || !URL.canParse(url)) {
    throw new Error('the metadata have no jwks_uri with a URL')
  }
  if (/^https:/i.test(metadataUrl) && !/^https:/i.test(url)) throw new Error('jwks_uri of the metadata is not https')
  return url
}
