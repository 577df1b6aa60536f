import type {
  FastifyContextConfig,
  FastifyInstance,
  FastifyPluginAsync,
  FastifySchema,
  RouteHandlerMethod,
  RouteOptions
} from 'fastify'
import type { PathPattern } from '../config/path-pattern.ts'
import { paramNames, pathPatterns } from '../config/path-pattern.ts'
import { mountPoint } from '../config/path-reading.ts'
import { methodsOf } from '../config/route-table.ts'
import { RouteTables } from '../config/route-tables.ts'
import type { Config, RouteConfig } from '../config/schema.ts'
import { TimeSlice } from '../plugins/time-slices.ts'
import type { Target } from './match.ts'
import { CONSTRAINT, internalUrl, ROUTER_METHOD, tableStrategy, tablesFor } from './match.ts'
import { unknownMethod, unrouted } from './unrouted.ts'
import { moduleOptions, registerHttpProxy, startFault } from './via-http-proxy.ts'

let gateways = 0

/** One Fastify route for each configured route: the route table finds it, the edge's concerns attach to it. */
const proxy: FastifyPluginAsync<Config> = async (fastify, { file, routes, listen }) => {
  const tables = new RouteTables<Target>(
    listen.paths,
    routes.map(({ match }) => match)
  )
  const name = `${CONSTRAINT}${gateways++}`
  const { register, registerWith } = registrar(fastify, name)
  const unknown = internalUrl()
  fastify.addConstraintStrategy(
    tableStrategy(fastify, {
      tables,
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
  fastify.setNotFoundHandler(unrouted(tablesFor(fastify, tables), mountPoint(fastify), listen.unknownHost))

  const slice = new TimeSlice()
  for (const [index, route] of routes.entries()) {
    // Any method may carry a body, and none is special to a gateway.
    const methods = methodsOf(route.match)
    for (const method of methods) {
      if (!tables.methods.has(method)) fastify.addHttpMethod(method, { hasBody: true, overrideExisting: true })
    }
    const { answersPreflights } = route.declared
    for (const pattern of pathPatterns(route.match.path)) {
      const target =
        route.via === undefined ? addRoute(route, pattern, methods) : await addProxy(index, route, pattern, methods)
      tables.add({ match: route.match, pattern, answersPreflights, protection: route.protection, value: target })
    }
    if (slice.isOver) {
      // Fastify completes the routes that have been added: later, it would complete all of them at once.
      await fastify.after()
      await slice.next()
    }
  }

  function addRoute(route: RouteConfig, pattern: PathPattern, methods: string[]): Target {
    const url = internalUrl()
    addBridged(url, route, pattern, methods, {})
    return { url, preflightUrl: addPreflight(route, pattern, methods) }
  }

  async function addProxy(index: number, route: RouteConfig, pattern: PathPattern, methods: string[]): Promise<Target> {
    const url = internalUrl()
    const fault = startFault(file, index, route)
    const module = await moduleOptions(route, fault)
    const config = { ...route.config, route }
    await registerWith(url, paramNames(pattern), methods, (constraints, methods) =>
      registerHttpProxy(fastify, { route, pattern, url: urlOf(route), methods, config, constraints, module })
    ).catch((error: Error) => {
      throw fault(error.message, error)
    })
    return { url, preflightUrl: addPreflight(route, pattern, methods) }
  }

  function addPreflight(route: RouteConfig, pattern: PathPattern, methods: string[]): string | null {
    if (!route.declared.answersPreflights || methods.includes('OPTIONS')) return null
    const url = internalUrl()
    addBridged(url, route, pattern, ['OPTIONS'], { preflightFor: [...methods] })
    return url
  }

  /** Adds a route whose handler is the bridge's. */
  function addBridged(
    url: string,
    route: RouteConfig,
    pattern: PathPattern,
    method: string[],
    more: FastifyContextConfig
  ): void {
    const placeholder = unbridged()
    const config = { ...route.config, route, placeholder, ...more }
    register(url, paramNames(pattern), { url: urlOf(route), method, config, handler: placeholder.handler })
  }
}

export default proxy

type Placeholder = NonNullable<FastifyContextConfig['placeholder']>

/** Returns the handler of a route that is being added; the bridge takes its place, or is called by it. */
function unbridged(): Placeholder {
  let forward: RouteHandlerMethod = () => {
    throw new Error('no bridge to the mesh is registered')
  }
  return {
    handler: function proxied(request, reply) {
      forward.call(this, request, reply)
      // For a handler around this one that waits for the response.
      return reply
    },
    call: (handler) => {
      forward = handler
    }
  }
}

/** As `request.routeOptions.url` shows it, a doubled colon being one. */
function urlOf({ match: { path } }: RouteConfig): string {
  return typeof path === 'string' ? path : path.exact.replaceAll(':', '::')
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
  const begin = (url: string, names: readonly string[], methods: string[]) => {
    const written = [...methods]
    internal = { url: [url, ...names.map((name) => (name === '*' ? '*' : `:${name}`))].join('/'), methods }
    return () => {
      methods.splice(0, methods.length, ...written)
      restoreUrl()
      internal = null
    }
  }
  return {
    register(
      url: string,
      names: readonly string[],
      options: Omit<RouteOptions, 'method'> & { method: string[] }
    ): void {
      const end = begin(url, names, options.method)
      // Which methods a route has is said by the configuration.
      fastify.route({ ...options, exposeHeadRoute: false, constraints: { [constraint]: url } } as RouteOptions)
      end()
    },
    /** For a plugin that adds the one route by itself, with these constraints and methods. */
    async registerWith(
      url: string,
      names: readonly string[],
      methods: readonly string[],
      add: (constraints: Record<string, string>, methods: string[]) => Promise<void>
    ): Promise<void> {
      const own = [...methods]
      const end = begin(url, names, own)
      await add({ [constraint]: url }, own)
      end()
    }
  }
}
