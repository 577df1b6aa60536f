/** Header names with a meaning of their own to the gateway, which no configured header may have. */
import { hopByHop } from '../plugins/http-syntax.ts'

/** These frame the message or belong to one connection. */
const connection = [...hopByHop, 'host', 'content-length', 'expect']
/** Forwarding headers that the gateway writes itself, from those of the request if they are believed. */
export const rewrittenHeaders = [
  'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-prefix', 'forwarded'
] as const // biome-ignore format: a list
/** Other headers that services and frameworks believe: passed on if they are believed, else dropped. */
export const passedOnHeaders = [
  'x-forwarded-server', 'x-forwarded-scheme', 'x-forwarded-ssl', 'x-real-ip', 'x-original-url', 'x-rewrite-url'
] as const // biome-ignore format: a list
/** Headers by which proxies say who called and for what. */
export const forwardingHeaders = [...rewrittenHeaders, ...passedOnHeaders] as const
/** These the gateway writes itself. */
const own = ['via', ...rewrittenHeaders]
/** These say what a body is, or what to do with a message. */
const message = [
  'content-type', 'content-encoding', 'content-range', 'content-location', 'content-language', 'range', 'set-cookie',
  'cookie', 'authorization', 'www-authenticate', 'location', 'cache-control', 'date', 'etag', 'vary', 'expires', 'age',
  'allow', 'retry-after', 'origin', 'accept', 'user-agent'
] // biome-ignore format: a list

/** One spelling: CGI, WSGI, Rack and PHP read `x_user_id`, and some `x.user.id`, as `X-User-Id`. */
export function canonicalName(name: string): string {
  return name.toLowerCase().replace(/[^a-z0-9]/g, '-')
}

const ofConnection: ReadonlySet<string> = new Set(connection)
const ofGateway: ReadonlySet<string> = new Set([...connection, ...own])
const ofMessages: ReadonlySet<string> = new Set([...connection, ...own, ...message])

/** Returns whether a header belongs to the connection, so that no concern and no plugin may set it for a service. */
export const isConnectionHeader = (name: string): boolean => ofConnection.has(canonicalName(name))

/** Returns whether the gateway sets this header of each request itself. */
export const isGatewayHeader = (name: string): boolean => ofGateway.has(canonicalName(name))

/** Returns whether a header has a meaning of its own, so that it cannot carry an id in both directions. */
export const isStandardHeader = (name: string): boolean => ofMessages.has(canonicalName(name))
