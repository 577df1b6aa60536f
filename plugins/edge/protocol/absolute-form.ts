import type { IncomingMessage } from 'node:http'

const slash = 47

/**
 * Returns the request target in origin form, which the router and all rules expect: `/path` for `GET http://host/path`
 * (RFC 9112, 3.2.2). The authority must be that of `Host`, since routes match and services see that header. Other targets
 * are returned unchanged, and refused later.
 */
export function toOriginForm(request: IncomingMessage): string {
  const url = request.url!
  if (url.charCodeAt(0) === slash) return url
  const { host } = request.headers
  const [, authority, rest = ''] = /^https?:\/\/([^/?#]*)(.*)$/is.exec(url) ?? []
  if (!authority || authority.toLowerCase() !== host?.toLowerCase()) return url
  if (rest.charCodeAt(0) === slash) return rest
  return rest === '' && request.method === 'OPTIONS' ? '*' : `/${rest}`
}
