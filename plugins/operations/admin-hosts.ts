import type { IncomingMessage } from 'node:http'
import { hostname } from 'node:os'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Config } from '../../config/schema.ts'
import { unmapped } from '../http-syntax.ts'

const MisdirectedHost = createError(
  'JW_ADMIN_HOST',
  'The admin port does not answer to this host name; list it in admin.hosts if it is one of its own',
  421
)
const CrossSite = createError('JW_ADMIN_CROSS_SITE', 'The admin port answers no requests of other web sites', 403)

/**
 * Hook that refuses requests which a browser was tricked into. By DNS rebinding, a web site points its own name to the
 * admin port's address and then reads what the port answers; only `Host` gives it away. A request without `Host` (a
 * load balancer's check over HTTP/1.0) comes from no browser.
 */
export function refuseOtherSites(admin: Exclude<Config['admin'], false>) {
  const own = new Set([admin.host, 'localhost', hostname(), ...admin.hosts].map(plainHost))
  const suffixes = admin.hosts.filter((host) => host.startsWith('*.')).map((host) => host.slice(1).toLowerCase())
  const isOwn = (authority: string, { socket }: IncomingMessage) => {
    const host = hostOf(authority)
    if (own.has(host) || isLoopback(host) || host === plainHost(socket.localAddress ?? '')) return true
    return suffixes.some((suffix) => host.length > suffix.length && host.endsWith(suffix))
  }
  return (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
    const { raw } = request
    const { host, origin, 'sec-fetch-site': site, 'sec-fetch-dest': destination } = raw.headers
    if (host !== undefined && !isOwn(host, raw)) return done(new MisdirectedHost())
    // A link to a page of the admin port may be followed from anywhere.
    const isLink = destination === 'document' && raw.method === 'GET'
    const isForeign = site === 'cross-site' && !isLink
    if (isForeign || (origin !== undefined && !isOwn(authorityOf(origin), raw))) return done(new CrossSite())
    done()
  }
}

/** The host of an authority, without its port and the brackets of an IPv6 address. */
function hostOf(authority: string): string {
  if (authority.startsWith('[')) return plainHost(authority.slice(1).split(']', 1)[0]!)
  return plainHost(authority.split(':', 1)[0]!)
}

/** Lower case, without the dot of an absolute name and the IPv6 form of an IPv4 address. */
function plainHost(host: string): string {
  return unmapped(host.toLowerCase().replace(/\.$/, ''))
}

function isLoopback(host: string): boolean {
  return host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)
}

/** Empty, which is nobody's host, for `null` and whatever else is no URL. */
function authorityOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).host : ''
}
