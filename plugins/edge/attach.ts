/**
 * Attaches the hooks of an edge concern to the routes that use it, and to no others. The concern's `onRoute` hook reads
 * the route by `edgeRouteOf`, which includes plugins' own routes, and appends its hooks to that route only.
 */
import type { FastifyContextConfig, FastifyInstance, FastifyRequest, RouteHandlerMethod, RouteOptions } from 'fastify'
import type { PathPattern } from '../../config/path-pattern.ts'
import type { RouteConfig } from '../../config/schema.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Routes of which no response to some requests may tell: those for which the function returns true. */
    hiddenRoutes?: Map<EdgeRoute, (request: FastifyRequest) => boolean>
  }
  interface FastifyContextConfig {
    /** The configured route that this Fastify route serves; absent on routes that are not proxied. */
    route?: RouteConfig
    /** The path of the configured route that this Fastify route serves. */
    matchedPath?: PathPattern
    /** Concerns of a plugin's own route, as in `routes[].edge`; `true` takes the options of the top-level `edge`. */
    edge?: Readonly<Record<string, unknown>>
    /** True on the own routes of a plugin that is registered with `guarded: true`. */
    guarded?: boolean
    /** A plugin's own route, as the edge's concerns see it. */
    ownRoute?: EdgeRoute
    /** On an OPTIONS route that exists only for preflights: the methods that these may request. */
    preflightFor?: readonly string[]
    /** On a path that a concern of the configured route serves itself: that path. */
    ownPath?: string
    /** Handler of a configured route until the bridge sets the final one. */
    placeholder?: Placeholder
    /** On the route for requests that match no other route. */
    unrouted?: boolean
  }
}

const isOurs = 'the gateway itself sets it'

/** Keys that `routes[].config` cannot have, with the reason: the gateway sets them, or nothing reads them. */
export const reservedRouteConfig = {
  edge: 'write the concerns of a configured route in its "edge"',
  guarded: 'it belongs to an entry of "plugins", for routes that the plugin adds',
  route: isOurs,
  matchedPath: isOurs,
  ownRoute: isOurs,
  preflightFor: isOurs,
  ownPath: isOurs,
  placeholder: isOurs,
  encodeResponse: isOurs,
  callInterceptors: isOurs,
  unrouted: isOurs,
  url: isOurs,
  method: isOurs
} satisfies { readonly [K in keyof FastifyContextConfig | 'url' | 'method']?: string }

export interface Placeholder {
  readonly handler: RouteHandlerMethod
  /** Sets the function that `handler` calls; for handlers of plugins that wrap `handler`. */
  readonly call: (handler: RouteHandlerMethod) => void
}

/** A route as concerns see it. The name of a plugin's own route is its path. */
export type EdgeRoute = Pick<RouteConfig, 'name' | 'edge' | 'declared'>

/** Returns the route that concerns apply to; undefined for the handler of requests that match no route. */
export function edgeRouteOf(config: FastifyContextConfig | undefined): EdgeRoute | undefined {
  return config?.route ?? config?.ownRoute
}

/** Returns whether no response to a request may tell of its route. */
export const isHidden = (route: EdgeRoute, request: FastifyRequest): boolean =>
  request.server.hiddenRoutes?.get(route)?.(request) === true

/** Returns whether a request has neither a route nor a not-found handler that concerns apply to. */
export function isUnrouted(request: FastifyRequest): boolean {
  const { config } = request.routeOptions
  return config.unrouted === true || (request.is404 && edgeRouteOf(config) === undefined)
}

/** Adds an `onResponse` hook for the requests that `isUnrouted` means. It costs routed requests next to nothing. */
export function onUnroutedResponse(fastify: FastifyInstance, hook: Hook<'onResponse'>): void {
  fastify.addHook('onRoute', (routeOptions) => {
    if (routeOptions.config?.unrouted) attach(routeOptions, 'onResponse', hook)
  })
  fastify.addHook('onResponse', function (request, reply, done) {
    // First, because Fastify makes an object for each use of `routeOptions`.
    if (request.is404 && isUnrouted(request)) hook.call(this, request, reply, done)
    else done()
  })
}

export type Phase =
  | 'onRequest'
  | 'preParsing'
  | 'preValidation'
  | 'preHandler'
  | 'preSerialization'
  | 'onSend'
  | 'onResponse'
  | 'onError'
  | 'onTimeout'
  | 'onRequestAbort'
type Hook<P extends Phase> = Exclude<RouteOptions[P], undefined | readonly unknown[]>

/** Appends a hook to one route. Copies the list of hooks, because several routes may share it. */
export function attach<P extends Phase>(routeOptions: Pick<RouteOptions, P>, phase: P, hook: Hook<P>): void {
  const before: unknown = routeOptions[phase]
  const hooks = before === undefined ? [] : Array.isArray(before) ? before : [before]
  Object.assign(routeOptions, { [phase]: [...hooks, hook] })
}

/** Sets the handler of a route. Handlers of plugins that wrap the placeholder then wrap this one. */
export function setHandler(routeOptions: RouteOptions, handler: RouteHandlerMethod): void {
  const placeholder = routeOptions.config?.placeholder
  if (placeholder === undefined || routeOptions.handler === placeholder.handler) routeOptions.handler = handler
  else placeholder.call(handler)
}
