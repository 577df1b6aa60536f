/** Redirects of browsers: which requests may be redirected to a login, and where to. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { markLastResponse } from '../../protocol/last-response.ts'
import { hasBody } from '../../protocol/request-body.ts'

/** Longest path and query to which a browser returns after the login. */
const longestReturn = 2000

/**
 * Returns whether a request loads a page, so that it can be redirected to a login. A redirected fetch would follow to the
 * provider and fail there by CORS; a redirected form would lose its content.
 */
export function isNavigation({ method, headers }: FastifyRequest): boolean {
  if (method !== 'GET' || headers.upgrade !== undefined) return false
  const { 'sec-fetch-mode': mode, 'sec-fetch-dest': dest, 'sec-purpose': purpose, accept = '' } = headers
  if (purpose !== undefined || headers.purpose === 'prefetch') return false
  // `empty`: the page load of a service worker. Scripts cannot request this mode otherwise.
  if (mode !== undefined) return mode === 'navigate' && (dest === undefined || dest === 'document' || dest === 'empty')
  // Browsers send Fetch Metadata to secure origins only.
  return /\btext\/html\b/i.test(accept) && headers['x-requested-with'] === undefined
}

/** Returns a path on the same host; `/` for anything else that a browser could read as another host. */
export function returnPath(target: string): string {
  return target.length <= longestReturn && /^\/(?![/\\])[!-~]*$/.test(target) ? target : '/'
}

/** Returns scheme and host as the client sees them. */
export const originOf = ({ protocol, host }: FastifyRequest): string => `${protocol}://${host}`

/** Returns whether browsers store cookies with `Secure` for this request. */
export const secureEnough = ({ protocol, hostname }: FastifyRequest): boolean =>
  protocol === 'https' || /^(?:localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/.test(hostname)

/** Responds in place of the service. No cache may store the response. */
export function respond(
  request: FastifyRequest,
  reply: FastifyReply,
  status: number,
  location: string | null,
  body?: string
): void {
  const { raw } = request
  // The unread body must not be parsed as the next request.
  if (hasBody(raw) && raw.httpVersionMajor === 1) {
    markLastResponse(raw)
    reply.header('connection', 'close')
  }
  request.isOwnResponse = true
  reply.code(status).header('cache-control', 'no-store').header('referrer-policy', 'no-referrer')
  if (location !== null) reply.header('location', location)
  if (body !== undefined) reply.type('text/plain; charset=utf-8')
  reply.send(body)
}
