/**
 * The edge's concerns on a plugin's not-found handler. Concerns attach to routes by `onRoute` hooks, which Fastify calls
 * only for routes. This file records the gateway's `onRoute` hooks and calls them for the not-found handler, too.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'

type OnRoute = (this: FastifyInstance, route: RouteOptions) => void

declare module 'fastify' {
  interface FastifyInstance {
    /** Attaches the concerns to a not-found handler, which is passed as a route. */
    attachToNotFound: (route: RouteOptions) => void
  }
}

/** Records the `onRoute` hooks that are added to the instance from now on, except those of plugins. */
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
