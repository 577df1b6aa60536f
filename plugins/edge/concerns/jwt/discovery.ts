/** Longest part of a foreign text in a message. */
const most = 200

/**
 * Returns `jwks_uri` of the metadata of an issuer (OpenID Connect Discovery, 4.3; RFC 8414, 3.3). Throws if they are those of
 * another issuer: it could sign tokens in the name of the expected one.
 */
export function keySetUrl(metadata: unknown, issuer: string, metadataUrl: string): string {
  const { issuer: found, jwks_uri: url } = Object(metadata) as Record<string, unknown>
  if (found !== issuer) {
    throw new Error(`the metadata are of the issuer ${JSON.stringify(found)?.slice(0, most)}, not of "${issuer}"`)
  }
  if (typeof url !== 'string' || !/^https?:/i.test(url) || !URL.canParse(url)) {
    throw new Error('the metadata have no jwks_uri with a URL')
  }
  if (/^https:/i.test(metadataUrl) && !/^https:/i.test(url)) throw new Error('jwks_uri of the metadata is not https')
  return url
}
