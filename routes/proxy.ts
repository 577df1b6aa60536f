import type { FastifyPluginAsync, RouteOptions } from 'fastify'
import type { Config, RouteConfig } from '../config/schema.ts'
import { allowedMethods } from './allowed-methods.ts'
import type { RankedConstraint } from './match.ts'
import { matchConstraint, matchStrategy, preflightConstraint } from './match.ts'

const defaultMethods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']

/** One Fastify route for each configured route: the router finds it, the edge's concerns attach to it. */
const proxy: FastifyPluginAsync<Config> = async (fastify, config) => {
  const entries = entriesOf(config.routes)
  // Any method may carry a body, and none is special to a gateway.
  for (const method of new Set(entries.flatMap(({ methods }) => methods))) {
    fastify.addHttpMethod(method, { hasBody: true, overrideExisting: true })
  }
  if (!fastify.hasConstraintStrategy(matchStrategy.name)) fastify.addConstraintStrategy(matchStrategy)
  fastify.setNotFoundHandler(allowedMethods(entries.filter(({ preflightFor }) => !preflightFor)))
  for (const { route, url, methods, constraint, preflightFor } of entries) {
    fastify.route({
      method: [...methods],
      url,
      ...(constraint && { constraints: { match: constraint } }),
      config: { ...route.config, route, ...(preflightFor && { preflightFor }) },
      handler: unbridged
    } as RouteOptions)
  }
}

export default proxy

/** Put in place of this by the bridge as the route is added. */
function unbridged(): never {
  throw new Error('no bridge to the mesh is registered')
}

interface Entry {
  readonly route: RouteConfig
  readonly url: string
  readonly methods: readonly string[]
  readonly constraint: RankedConstraint | null
  /** Of an entry of OPTIONS for CORS alone, since the route itself does not take it: what may be asked for. */
  readonly preflightFor?: readonly string[]
}

/** What the router is told, in its order: of several that fit, it prefers what was registered last. */
function entriesOf(routes: readonly RouteConfig[]): Entry[] {
  // An exact path stands before the prefix of the same text.
  const exact = new Set<string>()
  for (const { match } of routes) {
    if (typeof match.path === 'string') continue
    const key = matchConstraint(match)?.key
    for (const method of methodsOf(match)) exact.add(`${method} ${asPattern(match.path.exact)} ${key}`)
  }
  const entries = routes.flatMap((route) => {
    const { match, edge } = route
    const constraint = matchConstraint(match)
    const all = methodsOf(match)
    return pathsOf(match.path).flatMap((url): Entry[] => {
      const taken = (method: string) =>
        typeof match.path === 'string' && exact.has(`${method} ${url} ${constraint?.key}`)
      const methods = all.filter((method) => !taken(method))
      if (methods.length === 0) return []
      const entry = { route, url, methods, constraint }
      if (!edge.cors || methods.includes('OPTIONS')) return [entry]
      return [
        entry,
        {
          route,
          url,
          methods: ['OPTIONS'],
          constraint: preflightConstraint(constraint, methods),
          preflightFor: methods
        }
      ]
    })
  })
  return entries.sort((a, b) => (a.constraint?.rank ?? 0) - (b.constraint?.rank ?? 0))
}

function methodsOf({ methods = defaultMethods }: RouteConfig['match']): string[] {
  // RFC 9110, 9.3.2: a resource that answers GET answers HEAD.
  return [...new Set(methods.includes('GET') ? [...methods, 'HEAD'] : methods)]
}

/** The router's patterns for a path: a prefix is itself and everything below it. */
function pathsOf(path: RouteConfig['match']['path']): string[] {
  if (typeof path !== 'string') return [asPattern(path.exact)]
  if (/[:*]/.test(path)) return [path]
  const prefix = path.replace(/\/+$/, '')
  return prefix === '' ? ['/', '/*'] : [prefix, `${prefix}/*`]
}

/** The router reads `:` as a parameter unless doubled. */
function asPattern(path: string): string {
  return path.replaceAll(':', '::')
}
