/**
 * Finds the Fastify route of a configured route. The route table chooses it; Fastify's router only has to get to the
 * Fastify route that stands for it, with its hooks, and to the routes that plugins add by themselves.
 *
 * The router knows each configured route by an internal URL and one method, whatever its path, hosts and methods. A
 * custom constraint puts the two together: find-my-way derives a request's constraints, then reads its method and URL,
 * walks its tree and asks the constraint's store at the end. Between the first step and the last, all of them
 * synchronous, the request has the internal URL; nobody else ever sees it.
 */
import type { IncomingMessage } from 'node:http'
import { METHODS } from 'node:http'
import type { FastifyInstance, HTTPMethods } from 'fastify'
import type { ConstraintStrategy, HTTPVersion } from 'find-my-way'
import type { PathPattern } from '../config/path-pattern.ts'
import { paramValues } from '../config/path-pattern.ts'
import type { ReadPath } from '../config/path-reading.ts'
import { ENCODED_SLASH, mountPoint, readPath } from '../config/path-reading.ts'
import type { RouteTable } from '../config/route-table.ts'
import type { RouteTables } from '../config/route-tables.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Number of routes that are not configured ones; absent on a server that was not made for the gateway. */
    ownRoutes?: { count: number }
  }
}

/** Prefix of the names of the constraints by which the router knows configured routes. */
export const CONSTRAINT = 'jingwei'

/** Counts the routes that plugins add by themselves to a new server. While there are none, no request looks for them. */
export function countOwnRoutes(server: FastifyInstance): void {
  const ownRoutes = { count: 0 }
  server.decorate('ownRoutes', ownRoutes)
  server.addHook('onRoute', ({ constraints = {} }) => {
    if (!Object.keys(constraints).some((name) => name.startsWith(CONSTRAINT))) ownRoutes.count++
  })
}

/** The internal URLs of a configured route: of the route, and of what answers its preflights. */
export interface Target {
  readonly url: string
  readonly preflightUrl: string | null
}

/** The one method by which the router knows configured routes: a tree for each of theirs costs memory and time. */
export const ROUTER_METHOD = 'GET'

let count = 0

/** No request target can be one, as it has a control character. */
export function internalUrl(): string {
  return `/\u0001${count++}`
}

interface Options {
  readonly tables: RouteTables<Target>
  /** The name of the constraint; the value of the constraint is the internal URL. */
  readonly name: string
  /** The internal URL of what answers methods that HTTP does not define. */
  readonly unknownMethod: string
  /** Called for requests that are not to be served, as the protection of their path is not certain. */
  readonly onAmbiguous: (request: IncomingMessage) => void
}

const known: ReadonlySet<string> = new Set(METHODS)

export function tableStrategy(fastify: FastifyInstance, { tables, name, unknownMethod, onAmbiguous }: Options) {
  const tableFor = tablesFor(fastify, tables)
  const prefix = mountPoint(fastify)
  const { ownRoutes } = fastify
  let url = ''
  let method = ''

  /** Gives the request the internal URL of its route, if a configured route takes it. */
  function divert(request: IncomingMessage): IncomingMessage {
    url = request.url!
    method = request.method!
    const to = known.has(method) ? target(request) : unknownMethod
    if (to !== null) {
      request.url = to
      if (method !== ROUTER_METHOD) request.method = ROUTER_METHOD
    }
    return request
  }

  function target(request: IncomingMessage): string | null {
    const path = pathUnder(prefix, url)
    if (path === null) return null
    const { headers } = request
    const found = tableFor(request).find({ method, host: hostOf(request), path, headers })
    if (found === null) return null
    const { value, preflight, pattern, ambiguous } = found
    const mayBeOwn = ownRoutes?.count !== 0 && !path.latin1
    if (mayBeOwn && isOwnRouteFirst(fastify, request, path, pattern)) return null
    if (ambiguous) onAmbiguous(request)
    const base = preflight ? value.preflightUrl! : value.url
    if (path.plain !== null && pattern.length !== null) {
      const rest = url.slice(prefix.length + pattern.length)
      return rest.charCodeAt(0) === 47 ? base + rest : `${base}/${rest}`
    }
    const query = url.indexOf('?')
    return base + paramsUrl(pattern, path) + (query === -1 ? '' : url.slice(query))
  }

  return {
    name,
    storage() {
      let mask = 0
      return {
        get(value: string | IncomingMessage) {
          if (typeof value === 'string') return mask
          value.url = url
          if (value.method !== method) value.method = method
          return mask
        },
        set(_value: string, bits: number) {
          mask = bits
        },
        del() {},
        empty() {}
      }
    },
    deriveConstraint: divert,
    validate() {},
    mustMatchWhenDerived: false
  } as unknown as ConstraintStrategy<HTTPVersion.V1, string>
}

/** Returns the function that finds the table of the routes on a request's listener. */
export function tablesFor<T>(
  { listenerOf }: Pick<FastifyInstance, 'listenerOf'>,
  tables: RouteTables<T>
): (request: IncomingMessage) => RouteTable<T> {
  const { only } = tables
  return only === null ? (request) => tables.of(listenerOf(request)) : () => only
}

/** The path as routes see it: without the prefix under which the gateway is registered. */
export function pathUnder(prefix: string, url: string): ReadPath | null {
  if (prefix === '') return readPath(url)
  if (!url.startsWith(prefix)) return null
  const rest = url.slice(prefix.length)
  return rest === '' || rest.startsWith('?') ? readPath(`/${rest}`) : readPath(rest)
}

/** The host that the client named. */
export function hostOf({ headers }: IncomingMessage): string {
  return (headers[':authority'] as string | undefined) ?? headers.host ?? ''
}

/** Characters that find-my-way does not take for themselves. */
const special = /[%?#;\0]/

function paramsUrl(pattern: PathPattern, path: ReadPath): string {
  let text = ''
  for (const value of paramValues(pattern, path)) {
    text += special.test(value) ? `/${encodeURIComponent(value.replaceAll(ENCODED_SLASH, '/'))}` : `/${value}`
  }
  return text
}

/**
 * Returns whether a route that a plugin, or the server around the gateway, added by itself goes before the configured
 * one. As in one router, fixed text goes before parameters, these before a prefix, the longer prefix before the
 * shorter.
 */
function isOwnRouteFirst(
  fastify: FastifyInstance,
  { url = '', method, headers }: IncomingMessage,
  path: ReadPath,
  { parts, end }: PathPattern
): boolean {
  const query = url.indexOf('?')
  const own = fastify.findRoute({
    url: query === -1 ? url : url.slice(0, query),
    method: method as HTTPMethods,
    constraints: { host: headers.host, version: headers['accept-version'] as string | undefined }
  })
  if (own === null) return false
  const { segments } = path
  const names = Object.keys(own.params)
  const rest = own.params['*']
  if (rest === undefined) return names.length === 0 || (end !== 'whole' && parts.length < segments.length)
  const fixed = segments.length - rest.split('/').filter((segment) => segment !== '').length
  return end !== 'whole' && fixed > parts.length
}
