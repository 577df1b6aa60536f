import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FastifyInstance, FastifyPluginAsync, FastifySchema, RouteOptions } from 'fastify'
import type { PathPattern } from '../config/path-pattern.ts'
import { paramNames, pathPatterns } from '../config/path-pattern.ts'
import { methodsOf, RouteTable } from '../config/route-table.ts'
import type { Config, RouteConfig } from '../config/schema.ts'
import type { Target } from './match.ts'
import { CONSTRAINT, internalUrl, mountPoint, ROUTER_METHOD, tableStrategy } from './match.ts'
import { unknownMethod, unrouted } from './unrouted.ts'

/** Routes that are added before the event loop may do other things. */
const BATCH = 100

let gateways = 0

/** One Fastify route for each configured route: the route table finds it, the edge's concerns attach to it. */
const proxy: FastifyPluginAsync<Config> = async (fastify, { routes, listen }) => {
  const table = new RouteTable<Target>(listen.paths)
  const name = `${CONSTRAINT}${gateways++}`
  const register = registrar(fastify, name)
  const unknown = internalUrl()
  fastify.addConstraintStrategy(
    tableStrategy(fastify, {
      table,
      name,
      unknownMethod: unknown,
      onAmbiguous: (request) => fastify.ambiguousPaths.add(request)
    })
  )
  // It is no part of the API that a document such as @fastify/swagger's describes.
  const schema = { hide: true } as FastifySchema
  register(unknown, [], {
    method: [ROUTER_METHOD],
    url: '/*',
    config: { unrouted: true },
    schema,
    handler: unknownMethod
  })
  fastify.setNotFoundHandler(unrouted(table, mountPoint(fastify), listen.unknownHost))

  for (const [index, route] of routes.entries()) {
    // Any method may carry a body, and none is special to a gateway.
    const methods = methodsOf(route.match)
    for (const method of methods) {
      if (!table.methods.has(method)) fastify.addHttpMethod(method, { hasBody: true, overrideExisting: true })
    }
    const cors = Boolean(route.edge.cors)
    for (const pattern of pathPatterns(route.match.path)) {
      const target = addRoute(route, pattern, methods)
      table.add({ match: route.match, pattern, cors, protection: route.protection, value: target })
    }
    if (index % BATCH === BATCH - 1) await nextTurn()
  }

  function addRoute(route: RouteConfig, pattern: PathPattern, methods: string[]): Target {
    const names = paramNames(pattern)
    const url = internalUrl()
    const { path } = route.match
    // As `request.routeOptions.url` shows it, a doubled colon being one.
    const options = { url: typeof path === 'string' ? path : path.exact.replaceAll(':', '::'), handler: unbridged }
    register(url, names, { ...options, method: methods, config: { ...route.config, route } })
    if (!route.edge.cors || methods.includes('OPTIONS')) return { url, preflightUrl: null }
    const preflightUrl = internalUrl()
    const config = { ...route.config, route, preflightFor: [...methods] }
    register(preflightUrl, names, { ...options, method: ['OPTIONS'], config })
    return { url, preflightUrl }
  }
}

export default proxy

/** Put in place of this by the bridge as the route is added. */
function unbridged(): never {
  throw new Error('no bridge to the mesh is registered')
}

/**
 * Adds Fastify routes that the router knows by internal URLs. The hooks of plugins see the route's own URL and methods,
 * and so does whoever asks for `request.routeOptions` or keeps the options, as @fastify/swagger does; only the router,
 * which reads the options behind the hooks, is given others.
 */
function registrar(fastify: FastifyInstance, constraint: string) {
  let internal: { url: string; methods: string[] } | null = null
  let restoreUrl = () => {}
  fastify.addHook('onRoute', (options) => {
    if (internal === null) return
    const { url } = options
    restoreUrl = () => {
      options.url = url
    }
    options.url = internal.url
    // In place, as the list stays that of the route's own options.
    internal.methods.splice(0, internal.methods.length, ROUTER_METHOD)
  })
  return (
    url: string,
    names: readonly string[],
    options: Omit<RouteOptions, 'method'> & { method: string[] }
  ): void => {
    const methods = [...options.method]
    internal = {
      url: [url, ...names.map((name) => (name === '*' ? '*' : `:${name}`))].join('/'),
      methods: options.method
    }
    fastify.route({ ...options, constraints: { [constraint]: url } } as RouteOptions)
    options.method.splice(0, options.method.length, ...methods)
    restoreUrl()
    internal = null
  }
}
