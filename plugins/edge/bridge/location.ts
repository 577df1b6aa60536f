/**
 * Translates `Location` and `Content-Location` of services that do not know their public path and host. If the route
 * changed path or host of the request, the same change is reverted in the response. References to other hosts, and
 * relative references, which the client resolves itself, are left unchanged.
 */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { PathPattern } from '../../../config/path-pattern.ts'
import { belowMount } from '../../../config/path-pattern.ts'
import type { RouteConfig } from '../../../config/schema.ts'
import { commaItems } from '../../http-syntax.ts'
import { encodePath } from '../protocol/encode-path.ts'
import type { TrustedHeaders } from '../protocol/forwarding-headers.ts'
import { strippedPrefix } from '../protocol/forwarding-headers.ts'
import type { Replacement } from '../protocol/target-path.ts'
import { replacementOf } from '../protocol/target-path.ts'

/**
 * Returns a response's headers with translated locations. A service may name itself by the hosts of the request or by the
 * instance's address, and may already have added `X-Forwarded-Prefix`.
 */
export type Relocate = (
  headers: IncomingHttpHeaders,
  request: Pick<FastifyRequest, 'raw' | 'trusted'>,
  instance: string | null
) => IncomingHttpHeaders

/** Prefix that a route strips, for `X-Forwarded-Prefix`; null if it strips none. If it has parameters, it depends on the target. */
export type StrippedPrefix = string | ((target: string) => string) | null

export function forwardedPrefix(route: RouteConfig, pattern: PathPattern): StrippedPrefix {
  const found = replacementOf(route, pattern)
  if (found === null || found.inner !== '') return null
  const outer = mountedPrefix(found, pattern)
  return outer === '' ? null : (outer ?? ((target) => publicPrefix(found, pattern, target)))
}

/** Returns the prefix that a route replaces, after that of the server under which the gateway is registered; null if it has parameters. */
function mountedPrefix({ outer }: Replacement, { mount = '' }: PathPattern): string | null {
  return outer === null ? null : mount + encodePath(outer === '/' ? '' : outer)
}

/** Returns the prefix as the client sent it, without empty segments: `//host` in `Location` would be another host. */
function publicPrefix({ endIn }: Replacement, pattern: PathPattern, target: string): string {
  const path = belowMount(pattern, target)
  const segments = path.slice(0, endIn(path)).split('/')
  return (pattern.mount ?? '') + segments.flatMap((segment) => (segment === '' ? [] : `/${segment}`)).join('')
}

/**
 * Returns the function that translates a route's locations; null if they need no translation. Call it at load.
 * `trustedOf` returns the headers that the gateway trusts from a request's peer.
 */
export function relocation(
  route: RouteConfig,
  pattern: PathPattern,
  trustedOf: (request: IncomingMessage) => TrustedHeaders | null
): Relocate | null {
  const changed = replacementOf(route, pattern)
  const { host = 'preserve' } = route.edge
  if (changed === null && host === 'preserve') return null
  const fixedPrefix = changed === null ? '' : mountedPrefix(changed, pattern)
  // The host by which the gateway calls the service.
  const fixed = host === 'preserve' || host === 'upstream' ? [] : [host.toLowerCase()]
  const inner = encodePath(changed?.inner ?? '')
  const prefix = forwardedPrefix(route, pattern)

  return (headers, request, instance) => {
    const { location, 'content-location': content } = headers
    if (location === undefined && content === undefined) return headers
    const trusted = trustedOf(request.raw)
    const authorities = authoritiesOf(request, trusted?.names.has('x-forwarded-host') === true)
    const outer = fixedPrefix ?? publicPrefix(changed!, pattern, request.raw.url!)
    const announced = strippedPrefix(prefix === null ? null : outer, request.raw, trusted)
    const own = instance === null ? fixed : [new URL(instance).host, ...fixed]
    const change = (value: string) => relocate(value, authorities, own, { outer, inner, announced })
    const copy = { ...headers } // the given object may be in use elsewhere
    if (typeof location === 'string') copy.location = change(location)
    if (typeof content === 'string') copy['content-location'] = change(content)
    return copy
  }
}

/** Returns the public authorities: that of the request, and that of `X-Forwarded-Host` from a trusted proxy. */
function authoritiesOf({ raw: { headers } }: Pick<FastifyRequest, 'raw'>, trustsHost: boolean): string[] {
  const named = [headers[':authority'] ?? headers.host, trustsHost ? headers['x-forwarded-host'] : undefined]
  return named.flatMap((value) =>
    value === undefined ? [] : (commaItems(String(value).toLowerCase(), mostHosts) ?? [])
  )
}

/** Hosts that `X-Forwarded-Host` may name; a longer list is ignored. */
const mostHosts = 16

/** Scheme, authority, path, and the rest (RFC 3986, appendix B). */
const reference = /^(https?:)?(?:\/\/([^/?#]*))?([^?#]*)(.*)$/is

interface Prefixes {
  readonly outer: string
  readonly inner: string
  /** Value of `X-Forwarded-Prefix` for the service. */
  readonly announced: string | null
}

function relocate(value: string, authorities: string[], own: readonly string[], prefixes: Prefixes): string {
  const [, scheme = '', host, path = '', rest = ''] = reference.exec(value) ?? []
  if (host === undefined) {
    return scheme === '' && path.startsWith('/') ? ofSameHost(exposed(path, prefixes)) + rest : value
  }
  const named = host.toLowerCase()
  const plain = (authority: string) => withoutDefaultPort(authority, scheme)
  if (authorities.some((authority) => plain(authority) === plain(named)))
    return `${scheme}//${host}${exposed(path, prefixes)}${rest}`
  // Clients cannot reach the service by its own names: use only the path.
  if (own.some((each) => plain(each) === plain(named))) return ofSameHost(exposed(path || '/', prefixes)) + rest
  return value
}

/** Returns a path as a reference to the same host: `//evil`, `/\evil` and the same with a tab would be another host to browsers. */
const ofSameHost = (path: string) => (/^\/[/\\\t]/.test(path) ? `/.${path}` : path)

function withoutDefaultPort(authority: string, scheme: string): string {
  const port = { 'http:': ':80', 'https:': ':443' }[scheme.toLowerCase()]
  return port !== undefined && authority.endsWith(port) ? authority.slice(0, -port.length) : authority
}

function exposed(path: string, { outer, inner, announced }: Prefixes): string {
  // A service that uses X-Forwarded-Prefix sends the public path itself.
  if (announced !== null && isUnder(path, announced)) return path
  if (outer !== '' && isUnder(path, outer)) return path
  return isUnder(path, inner) ? outer + path.slice(inner.length) : path
}

const isUnder = (path: string, prefix: string) => path === prefix || path.startsWith(`${prefix}/`)
