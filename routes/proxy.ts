import type { FastifyPluginAsync, RouteOptions } from 'fastify'
import type { Config, RouteConfig } from '../config/schema.ts'
import { allowedMethods } from './allowed-methods.ts'
import { matchConstraint, matchStrategy } from './match.ts'

const defaultMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** One Fastify route for each configured route: the router finds it, the edge's concerns attach to it. */
const proxy: FastifyPluginAsync<Config> = async (fastify, config) => {
  const methods = new Set(config.routes.flatMap((route) => methodsOf(route).all))
  // Any method may carry a body, and none is special to a gateway.
  for (const method of methods) fastify.addHttpMethod(method, { hasBody: true, overrideExisting: true })

  if (!fastify.hasConstraintStrategy(matchStrategy.name)) fastify.addConstraintStrategy(matchStrategy)

  const ranked = config.routes.map((route) => ({ route, constraint: matchConstraint(route.match) }))
  // The router prefers what was registered last.
  ranked.sort((a, b) => (a.constraint?.rank ?? 0) - (b.constraint?.rank ?? 0))
  const allowed = allowedMethods(
    ranked.map(({ route, constraint }) => ({ paths: pathsOf(route), methods: methodsOf(route).own, constraint }))
  )
  fastify.setNotFoundHandler(allowed)
  for (const { route, constraint } of ranked) {
    const { all, preflightOnly } = methodsOf(route)
    for (const url of pathsOf(route)) {
      fastify.route({
        method: [...all],
        url,
        ...(constraint && { constraints: { match: constraint } }),
        config: { ...route.config, route, ...(preflightOnly && { preflightOnly }) },
        handler: unbridged
      } as RouteOptions)
    }
  }
}

export default proxy

/** Put in place of this by the bridge as the route is added. */
function unbridged(): never {
  throw new Error('no bridge to the mesh is registered')
}

/** `own`: what the route takes. `all`: with OPTIONS where CORS needs it for preflights. */
function methodsOf({ match, edge }: RouteConfig): { own: string[]; all: string[]; preflightOnly: boolean } {
  const named = match.methods ?? defaultMethods
  // RFC 9110, 9.3.2: a resource that answers GET answers HEAD.
  const own = [...new Set(named.includes('GET') ? [...named, 'HEAD'] : named)]
  const preflightOnly = !own.includes('OPTIONS') && edge.cors !== undefined && edge.cors !== false
  return { own, all: preflightOnly ? [...own, 'OPTIONS'] : own, preflightOnly }
}

/** The router's patterns for a path: a prefix is itself and everything below it. */
export function pathsOf({ match: { path } }: RouteConfig): string[] {
  if (typeof path !== 'string') return [asPattern(path.exact)]
  if (/[:*]/.test(path)) return [path]
  const prefix = path.replace(/\/+$/, '')
  return prefix === '' ? ['/', '/*'] : [prefix, `${prefix}/*`]
}

/** The router reads `:` as a parameter unless doubled. */
function asPattern(path: string): string {
  return path.replaceAll(':', '::')
}
