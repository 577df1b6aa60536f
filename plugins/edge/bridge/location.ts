/**
 * `Location` and `Content-Location` of a service that does not know under which path or host it is exposed.
 * Where the route changed the path or host on the way in, they are changed back on the way out; references to
 * other hosts, and relative ones, which the client resolves by itself, stay as they are.
 */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { RouteConfig } from '../../../config/schema.ts'
import { commaItems } from '../../http-syntax.ts'
import type { Believed } from '../protocol/forwarding-headers.ts'
import { prefixSoFar } from '../protocol/forwarding-headers.ts'
import { encodePath, withoutEndSlashes } from '../protocol/target-path.ts'

/**
 * Returns a response's headers with its locations changed back. A service may call itself by the hosts that the request
 * names and by the instance's address, and may already have heeded `X-Forwarded-Prefix`.
 */
export type Relocate = (
  headers: IncomingHttpHeaders,
  request: Pick<FastifyRequest, 'raw' | 'trusted'>,
  instance: string | null
) => IncomingHttpHeaders

/** The prefixes that the client's and the service's path begin with; null if they are the same. */
function prefixes({ match, path }: RouteConfig): { outer: string; inner: string } | null {
  if (path?.strip !== undefined) return { outer: withoutEndSlashes(path.strip), inner: '' }
  if (path?.rewrite === undefined) return null
  const outer = typeof match.path === 'string' ? match.path : match.path.exact
  return { outer: withoutEndSlashes(outer), inner: withoutEndSlashes(path.rewrite.prefix) }
}

/** Returns the prefix that is taken off the path for the service, for `X-Forwarded-Prefix`; null if none is. */
export function forwardedPrefix(route: RouteConfig): string | null {
  const found = prefixes(route)
  return found !== null && found.inner === '' && found.outer !== '' ? encodePath(found.outer) : null
}

/**
 * Returns the function that changes a route's locations back, or null where they stay as they are. Build it at load.
 * `believedOf` returns the headers that are believed of a request's peer.
 */
export function relocation(
  route: RouteConfig,
  believedOf: (request: IncomingMessage) => Believed | null
): Relocate | null {
  const changed = prefixes(route)
  if (changed === null && route.edge.host !== 'upstream') return null
  const outer = encodePath(changed?.outer ?? '')
  const inner = encodePath(changed?.inner ?? '')
  const taken = forwardedPrefix(route)

  return (headers, request, instance) => {
    const { location, 'content-location': content } = headers
    if (location === undefined && content === undefined) return headers
    const believed = believedOf(request.raw)
    const authorities = authoritiesOf(request, believed?.names.has('x-forwarded-host') === true)
    const told = prefixSoFar(taken, request.raw, believed)
    const change = (value: string) => relocate(value, authorities, instance, { outer, inner, told })
    const copy = { ...headers } // what is given may be kept by others
    if (typeof location === 'string') copy.location = change(location)
    if (typeof content === 'string') copy['content-location'] = change(content)
    return copy
  }
}

/** Returns the authorities of this gateway for clients: that of the request, or the one that a trusted proxy got. */
function authoritiesOf({ raw: { headers } }: Pick<FastifyRequest, 'raw'>, believesHost: boolean): string[] {
  const named = [headers[':authority'] ?? headers.host, believesHost ? headers['x-forwarded-host'] : undefined]
  return named.flatMap((value) =>
    value === undefined ? [] : (commaItems(String(value).toLowerCase(), mostHosts) ?? [])
  )
}

/** Hosts that `X-Forwarded-Host` may name; a longer list is ignored. */
const mostHosts = 16

/** scheme, authority, path, and the rest; RFC 3986, appendix B. */
const reference = /^(https?:)?(?:\/\/([^/?#]*))?([^?#]*)(.*)$/is

interface Prefixes {
  readonly outer: string
  readonly inner: string
  readonly told: string | null
}

function relocate(value: string, authorities: string[], instance: string | null, prefixes: Prefixes): string {
  const [, scheme = '', host, path = '', rest = ''] = reference.exec(value) ?? []
  if (host === undefined) {
    return scheme === '' && path.startsWith('/') ? exposed(path, prefixes) + rest : value
  }
  const named = host.toLowerCase()
  const plain = (authority: string) => withoutDefaultPort(authority, scheme)
  if (authorities.some((authority) => plain(authority) === plain(named)))
    return `${scheme}//${host}${exposed(path, prefixes)}${rest}`
  // By its own address, which clients cannot reach: the path alone is meant.
  if (instance !== null && named === new URL(instance).host) return exposed(path || '/', prefixes) + rest
  return value
}

function withoutDefaultPort(authority: string, scheme: string): string {
  const port = { 'http:': ':80', 'https:': ':443' }[scheme.toLowerCase()]
  return port !== undefined && authority.endsWith(port) ? authority.slice(0, -port.length) : authority
}

function exposed(path: string, { outer, inner, told }: Prefixes): string {
  // A service that heeds X-Forwarded-Prefix says it right by itself.
  if (told !== null && isUnder(path, told)) return path
  if (outer !== '' && isUnder(path, outer)) return path
  return isUnder(path, inner) ? outer + path.slice(inner.length) : path
}

const isUnder = (path: string, prefix: string) => path === prefix || path.startsWith(`${prefix}/`)
