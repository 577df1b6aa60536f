/**
 * Attachment of an edge concern to the routes that use it, and to no others: its `onRoute` hook reads the route by
 * `edgeRouteOf`, a plugin's own route included, and appends its hooks to that one route.
 */
import type { FastifyContextConfig, FastifyRequest, RouteHandlerMethod, RouteOptions } from 'fastify'
import type { RouteConfig } from '../../config/schema.ts'

declare module 'fastify' {
  interface FastifyContextConfig {
    /** The configured route that this Fastify route serves; absent on routes that are not proxied. */
    route?: RouteConfig
    /** Concerns that a plugin's own route asks for, as in `routes[].edge`; `true` takes the options of the top level. */
    edge?: Readonly<Record<string, unknown>>
    /** True on the own routes of a plugin that is registered with `guarded: true`. */
    guarded?: boolean
    /** A plugin's own route, as the edge's concerns see it. */
    ownRoute?: EdgeRoute
    /** On a route of OPTIONS that is there for preflights alone: the methods they may ask for. */
    preflightFor?: readonly string[]
    /** The handler with which a configured route is added, until the bridge gives it one. */
    placeholder?: Placeholder
    /** On the route that answers what cannot be routed at all. */
    unrouted?: boolean
  }
}

const isOurs = 'the gateway itself sets it'

/** Names that `routes[].config` cannot have: of a configured route, the gateway sets them, or nothing reads them. */
export const reservedRouteConfig = {
  edge: 'write the concerns of a configured route in its "edge"',
  guarded: 'it belongs to an entry of "plugins", for routes that the plugin adds',
  route: isOurs,
  ownRoute: isOurs,
  preflightFor: isOurs,
  placeholder: isOurs,
  unrouted: isOurs,
  url: isOurs,
  method: isOurs
} satisfies { readonly [K in keyof FastifyContextConfig | 'url' | 'method']?: string }

export interface Placeholder {
  readonly handler: RouteHandlerMethod
  /** Sets what `handler` calls: for the handlers that plugins have put around it. */
  readonly call: (handler: RouteHandlerMethod) => void
}

/** A route, as concerns see it. The name of a plugin's own one is its path. */
export type EdgeRoute = Pick<RouteConfig, 'name' | 'edge' | 'declared'>

/** Returns the route that concerns apply to; undefined for what answers requests that no route takes. */
export function edgeRouteOf(config: FastifyContextConfig | undefined): EdgeRoute | undefined {
  return config?.route ?? config?.ownRoute
}

/** Returns whether a request has neither a route nor a not-found handler that concerns apply to. */
export function isUnrouted({ is404, routeOptions }: FastifyRequest): boolean {
  const { config } = routeOptions
  return config.unrouted === true || (is404 && edgeRouteOf(config) === undefined)
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

/** Appends a hook to one route. Copies the list: routes may have been given the same one. */
export function attach<P extends Phase>(routeOptions: Pick<RouteOptions, P>, phase: P, hook: Hook<P>): void {
  const before: unknown = routeOptions[phase]
  const hooks = before === undefined ? [] : Array.isArray(before) ? before : [before]
  Object.assign(routeOptions, { [phase]: [...hooks, hook] })
}
