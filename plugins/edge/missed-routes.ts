/**
 * Own routes that ask for concerns and cannot have them, because they were added before the gateway or outside of its
 * context: `onRoute` hooks are called only for later routes of the same context. Without a check such a route would be open.
 */
import { subscribe } from 'node:diagnostics_channel'
import type { Server } from 'node:http'
import type { FastifyContextConfig, FastifyInstance, RouteOptions } from 'fastify'

/** Routes with `config.guarded` or `config.edge`, by the server of the Fastify instance that they were added to. */
const asking = new WeakMap<Server, RouteOptions[]>()

const asksForConcerns = ({ guarded, edge }: FastifyContextConfig) => Boolean(guarded) || edge !== undefined

/** Returns whether a route asks for concerns, and no gateway has attached them. */
const isMissed = (config: FastifyContextConfig = {}) =>
  asksForConcerns(config) && config.ownRoute === undefined && config.route === undefined

// Fastify's channel reports each instance when it is created, before a program can add a route to it.
subscribe('fastify.initialization', (message) => {
  const { fastify } = message as { fastify: FastifyInstance }
  const routes: RouteOptions[] = []
  asking.set(fastify.server, routes)
  fastify.addHook('onRoute', (route) => {
    if (route.config !== undefined && asksForConcerns(route.config)) routes.push(route)
  })
})

const messageOf = (method: string | readonly string[], url: string, key: 'guarded' | 'edge') =>
  `${[method].flat().join(',')} ${url}: config.${key} has no effect on a route that was added before the gateway, or outside of ` +
  'its context; call `await server.register(fp(gateway), config)` first, and add the route then'

const keyOf = ({ guarded }: FastifyContextConfig) => (guarded ? 'guarded' : 'edge')

/** Fails the start of a server with such a route. */
export function refuseMissedRoutes(fastify: FastifyInstance): void {
  const routes = asking.get(fastify.server)
  if (routes === undefined) refuseRequests(fastify)
  else {
    fastify.addHook('onReady', async () => {
      const missed = routes.find(({ config }) => isMissed(config))
      if (missed !== undefined) throw new Error(messageOf(missed.method, missed.url, keyOf(missed.config!)))
    })
  }
}

/**
 * Refuses the requests of such routes: for a server that was created before this module was loaded, whose routes are
 * unknown. Fastify runs hooks of a context on its earlier routes, too.
 */
function refuseRequests(fastify: FastifyInstance): void {
  fastify.addHook('onRequest', (request, _reply, done) => {
    const { config, url } = request.routeOptions
    if (isMissed(config)) done(new Error(messageOf(request.method, url ?? '', keyOf(config))))
    else done()
  })
}
