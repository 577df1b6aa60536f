import type { IncomingMessage } from 'node:http'
import { hostname } from 'node:os'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Config } from '../../config/schema.ts'
import { unmapped } from '../http-syntax.ts'

const MisdirectedHost = createError(
  'JW_ADMIN_HOST',
  'The admin port does not accept this host name; add it to admin.hosts if it is a name of this gateway',
  421
)
const CrossSite = createError(
  'JW_ADMIN_CROSS_SITE',
  'The admin port refuses requests from other web sites, and from other ports of its host',
  403
)

/**
 * Returns a hook that refuses requests which a web site makes through an operator's browser. With DNS rebinding, a site
 * points its own name to the address of the admin port and reads the responses; such requests show only in `Host`. A request
 * without `Host` (a health check over HTTP/1.0) cannot come from a browser.
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
    // Links on other sites to a page of the admin port are allowed.
    const isLink = destination === 'document' && raw.method === 'GET'
    const isForeign = site === 'cross-site' && !isLink
    if (isForeign || (origin !== undefined && !isOwn(authorityOf(origin), raw))) return done(new CrossSite())
    const isChange = raw.method !== 'GET' && raw.method !== 'HEAD'
    if (isChange && site !== 'same-origin' && (site === 'same-site' || !isSameOrigin(origin, host)))
      return done(new CrossSite())
    done()
  }
}

/** Returns the host of an authority, without port and without the brackets of an IPv6 address. */
function hostOf(authority: string): string {
  if (authority.startsWith('[')) return plainHost(authority.slice(1).split(']', 1)[0]!)
  return plainHost(authority.split(':', 1)[0]!)
}

/** Normalises a host: lower case, no trailing dot, IPv4-mapped IPv6 addresses as IPv4. */
function plainHost(host: string): string {
  return unmapped(host.toLowerCase().replace(/\.$/, ''))
}

function isLoopback(host: string): boolean {
  return host === '::1' || /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$/.test(host)
}

/** Returns whether `Origin` has the host and port of `Host`; true without an `Origin`, which browsers always send with such methods. */
function isSameOrigin(origin: string | undefined, host = ''): boolean {
  if (origin === undefined) return true
  const page = URL.parse(origin)
  return page !== null && URL.parse(`${page.protocol}//${host}`)?.host === page.host
}

/** Returns the authority of an `Origin` header; empty, which matches no host, for `null` and other texts that are not URLs. */
function authorityOf(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).host : ''
}
