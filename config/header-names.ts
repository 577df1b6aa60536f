/** Header names with a meaning of their own to the gateway, which no configured header may have. */

/** These frame the message or belong to one connection. */
const connection = [
  'host', 'connection', 'keep-alive', 'content-length', 'transfer-encoding', 'te', 'trailer', 'upgrade', 'expect',
  'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'http2-settings'
] // biome-ignore format: a list
/** These the gateway writes itself. */
const own = [
  'via', 'forwarded', 'x-forwarded-for', 'x-forwarded-proto', 'x-forwarded-host', 'x-forwarded-port',
  'x-forwarded-prefix'
] // biome-ignore format: a list
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

/** Whether a header belongs to the connection, so that no concern and no plugin may set it for a service. */
export const isConnectionHeader = (name: string): boolean => ofConnection.has(canonicalName(name))

/** Whether the gateway sets this header of each request itself. */
export const isGatewayHeader = (name: string): boolean => ofGateway.has(canonicalName(name))

/** Whether a header has a meaning of its own, so that it cannot carry an id in both directions. */
export const isStandardHeader = (name: string): boolean => ofMessages.has(canonicalName(name))
