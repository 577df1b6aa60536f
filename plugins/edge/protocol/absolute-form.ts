import type { IncomingMessage } from 'node:http'

const slash = 47

/**
 * `GET http://host/path` as `GET /path`, which is what every rule and the router go by (RFC 9112, 3.2.2). Only
 * if Host names the same authority: that header is what routes match and services see. The rest stays as it is
 * and is refused.
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
