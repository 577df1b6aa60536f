/**
 * The edge's concerns on a not-found handler of a plugin. Concerns attach to routes by `onRoute` hooks, which Fastify calls
 * for routes alone. This file keeps those of the gateway and calls them for the handler as for a plugin's own route.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'

type OnRoute = (this: FastifyInstance, route: RouteOptions) => void

declare module 'fastify' {
  interface FastifyInstance {
    /** Attaches the concerns to a not-found handler, which is given as a route. */
    attachToNotFound: (route: RouteOptions) => void
  }
}

/** Keeps the `onRoute` hooks that are added to the instance from here on; those of plugins are for routes alone. */
export function watchRouteHooks(fastify: FastifyInstance): void {
  const hooks: OnRoute[] = []
  const original: (...args: never[]) => unknown = fastify.addHook
  Object.assign(fastify, {
    addHook(this: FastifyInstance, name: string, hook: OnRoute): unknown {
      const isOfPlugin = fastify.hasDecorator('faultOwners') && fastify.faultOwners.loading !== null
      if (name === 'onRoute' && this === fastify && !isOfPlugin) hooks.push(hook)
      return Reflect.apply(original, this, [name, hook])
    }
  })
  fastify.decorate('attachToNotFound', function (this: FastifyInstance, route: RouteOptions) {
    for (const hook of hooks) Reflect.apply(hook, this, [route])
  })
}
