/** Header names that the gateway or HTTP reserves, so that configured headers cannot use them. */
import { hopByHop } from '../plugins/http-syntax.ts'

/** Client certificates of RFC 9440. */
export const clientCert = 'client-cert'
export const clientCertChain = 'client-cert-chain'
/** Headers that frame the message or belong to one connection. */
const connection = [...hopByHop, 'host', 'content-length', 'expect']
/** Forwarding headers that the gateway writes itself, based on those of the request if they are trusted. */
const rewrittenHeaders = [
  'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port', 'x-forwarded-prefix', 'forwarded'
] as const // biome-ignore format: a list
/** Other headers that services and frameworks trust: forwarded if the peer is trusted, else dropped. */
export const passedOnHeaders = [
  'x-forwarded-server', 'x-forwarded-scheme', 'x-forwarded-ssl', 'x-forwarded-client-cert', 'x-real-ip',
  'x-original-url', 'x-rewrite-url', clientCert, clientCertChain
] as const // biome-ignore format: a list
/** Headers by which proxies describe the original client and request. */
export const forwardingHeaders = [...rewrittenHeaders, ...passedOnHeaders] as const
/** Headers that the gateway writes itself. */
const own = ['via', ...rewrittenHeaders]
/** Headers that describe a body or control the handling of a message. */
const message = [
  'content-type', 'content-encoding', 'content-range', 'content-location', 'content-language', 'range', 'set-cookie',
  'cookie', 'authorization', 'www-authenticate', 'location', 'cache-control', 'date', 'etag', 'vary', 'expires', 'age',
  'allow', 'retry-after', 'origin', 'accept', 'user-agent'
] // biome-ignore format: a list

/** Returns one spelling for names that servers do not distinguish: CGI, WSGI, Rack and PHP read `x_user_id`, some also `x.user.id`, as `X-User-Id`. */
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

/** Returns whether a header has a standard meaning, so that it cannot carry the request id. */
export const isStandardHeader = (name: string): boolean => ofMessages.has(canonicalName(name))
