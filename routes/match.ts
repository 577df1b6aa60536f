/**
 * Finds the Fastify route of a configured route. The route table chooses the configured route; Fastify's router only finds
 * the Fastify route with its hooks, and the routes that plugins add.
 *
 * In the router each configured route has an internal URL and one method, regardless of its path, hosts and methods. A
 * custom constraint connects the two: find-my-way derives a request's constraints, then reads its method and URL, walks its
 * tree and finally asks the constraint's store. From the first step to the last, all of them synchronous, the request has
 * the internal URL; no other code sees it.
 */
import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, HTTPMethods } from 'fastify'
import type { ConstraintStrategy, HTTPVersion } from 'find-my-way'
import type { PathPattern } from '../config/path-pattern.ts'
import { paramValues } from '../config/path-pattern.ts'
import type { ReadPath } from '../config/path-reading.ts'
import { ENCODED_SLASH, mountPoint, readPath } from '../config/path-reading.ts'
import type { RouteTable } from '../config/route-table.ts'
import type { RouteTables } from '../config/route-tables.ts'
import type { RouteConfig } from '../config/schema.ts'

// Not by `import`, which loads Node's own undici as well.
const { METHODS } = process.getBuiltinModule('node:http')

declare module 'fastify' {
  interface FastifyInstance {
    /** Number of routes that plugins added; absent on a server that embeds the gateway. */
    ownRoutes?: { count: number }
  }
}

/** Prefix of the names of the constraints by which the router knows configured routes. */
export const CONSTRAINT = 'jingwei'

/** Counts the routes that plugins add to a new server. While there are none, requests skip the search for them. */
export function countOwnRoutes(server: FastifyInstance): void {
  const ownRoutes = { count: 0 }
  server.decorate('ownRoutes', ownRoutes)
  server.addHook('onRoute', ({ constraints = {} }) => {
    if (!Object.keys(constraints).some((name) => name.startsWith(CONSTRAINT))) ownRoutes.count++
  })
}

/** Internal URLs of a configured route: of the route itself, and of the Fastify route for its CORS preflights. */
export interface Target {
  readonly route: RouteConfig
  readonly url: string
  readonly preflightUrl: string | null
}

/** The method of all configured routes in the router. A tree for each of their methods would cost memory and time. */
export const ROUTER_METHOD = 'GET'

let count = 0

/** Returns a new internal URL. Its control character cannot occur in a request target. */
export function internalUrl(): string {
  return `/\u0001${count++}`
}

interface Options {
  readonly tables: RouteTables<Target>
  /** The name of the constraint; the value of the constraint is the internal URL. */
  readonly name: string
  /** Internal URL of the Fastify route for unknown methods. */
  readonly unknownMethod: string
  /** Called for a request that must be refused, since another spelling of its path belongs to a route with other protection. */
  readonly onAmbiguous: (request: IncomingMessage) => void
}

const known: ReadonlySet<string> = new Set(METHODS)

export function tableStrategy(fastify: FastifyInstance, { tables, name, unknownMethod, onAmbiguous }: Options) {
  const tableFor = tablesFor(fastify, tables)
  const prefix = mountPoint(fastify)
  const { ownRoutes } = fastify
  let url = ''
  let method = ''

  /** Replaces the URL of the request by the internal URL of its configured route, if there is one. */
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
    const table = tableFor(request)
    const address = table.readsAddress ? fastify.clientAddressOf(request) : ''
    const found = table.find({ method, host: hostOf(request), path, headers, url, address })
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

/** Reads the path without the prefix under which the gateway is registered. Null if it is not below the prefix. */
export function pathUnder(prefix: string, url: string): ReadPath | null {
  if (prefix === '') return readPath(url)
  if (!url.startsWith(prefix)) return null
  const rest = url.slice(prefix.length)
  return rest === '' || rest.startsWith('?') ? readPath(`/${rest}`) : readPath(rest)
}

/** Returns the host of the request: `:authority` or `Host`. */
export function hostOf({ headers }: IncomingMessage): string {
  return (headers[':authority'] as string | undefined) ?? headers.host ?? ''
}

/** Characters that find-my-way does not take literally. */
const special = /[%?#;\0]/

function paramsUrl(pattern: PathPattern, path: ReadPath): string {
  let text = ''
  for (const value of paramValues(pattern, path)) {
    text += special.test(value) ? `/${encodeURIComponent(value.replaceAll(ENCODED_SLASH, '/'))}` : `/${value}`
  }
  return text
}

/**
 * Returns whether a route of a plugin, or of the server that embeds the gateway, takes precedence over the configured route.
 * As within one router, static segments precede parameters, parameters precede prefixes, and longer prefixes shorter ones.
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
