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
import { unknownCall, unknownHostMessage, unknownMethod, unknownServiceMessage, unrouted } from './unrouted.ts'
import { moduleOptions, registerHttpProxy, startFault } from './via-http-proxy.ts'

let gateways = 0

/** Adds a Fastify route for each configured route. The route table finds it; the edge's concerns attach to it by `onRoute`. */
const proxy: FastifyPluginAsync<Config> = async (fastify, given) => {
  const { file, routes, listen, forward, isSidecar } = given
  const tables = new RouteTables<Target>(
    listen.paths,
    routes.map(({ match }) => match)
  )
  const name = `${CONSTRAINT}${gateways++}`
  const { register, registerWith } = registrar(fastify, name)
  const mount = mountPoint(fastify)
  const mounted = (pattern: PathPattern): PathPattern => (mount === '' ? pattern : { ...pattern, mount })
  const unknown = internalUrl()
  fastify.addConstraintStrategy(
    tableStrategy(fastify, {
      tables,
      name,
      unknownMethod: unknown,
      onAmbiguous: (request) => fastify.ambiguousPaths.add(request)
    })
  )
  // Hidden, since it does not belong in the API documents of @fastify/swagger.
  const schema = { hide: true } as FastifySchema
  register(unknown, [], {
    method: [ROUTER_METHOD],
    url: '/*',
    config: { unrouted: true },
    schema,
    handler: unknownMethod
  })
  const selected = routes.flatMap(({ match, service }) => (match.hosts === undefined ? [] : (service ?? [])))
  const messageFor = isSidecar ? unknownServiceMessage([...new Set(selected)]) : unknownHostMessage
  const { clientAddressOf } = fastify
  const ofGateway = routes.some(({ isHandedOver }) => isHandedOver)
  const tableFor = tablesFor(fastify, tables)
  const usual = unrouted(tableFor, clientAddressOf, mount, listen.unknownHost, messageFor)
  fastify.setNotFoundHandler(ofGateway ? unknownCall : usual)

  const slice = new TimeSlice()
  for (const [index, route] of routes.entries()) {
    // A gateway treats all methods alike; each may have a body.
    const methods = methodsOf(route.match)
    for (const method of methods) {
      if (!tables.methods.has(method)) fastify.addHttpMethod(method, { hasBody: true, overrideExisting: true })
    }
    const { answersPreflights } = route.declared
    for (const pattern of pathPatterns(route.match.path)) {
      const target =
        route.compose !== undefined || route.portal !== undefined
          ? await addMade(route, pattern, methods)
          : route.via === undefined
            ? addRoute(route, pattern, methods)
            : await addProxy(index, route, pattern, methods)
      const { match, priority, protection } = route
      tables.add({ match, pattern, priority, answersPreflights, protection, value: target })
    }
    for (const path of route.declared.ownPaths) addOwnPath(path, route)
    if (slice.isOver) {
      // Lets Fastify complete the routes added so far; at the end it would complete all in one blocking step.
      await fastify.after()
      await slice.next()
    }
  }

  function addRoute(route: RouteConfig, pattern: PathPattern, methods: string[]): Target {
    const url = internalUrl()
    addBridged(url, route, pattern, methods, {})
    return { route, url, preflightUrl: addPreflight(route, pattern, methods) }
  }

  /** Adds a path that a concern of the route serves itself. If routes of a host have the same one, the first of them has it. */
  function addOwnPath(path: string, route: RouteConfig): void {
    const { priority, protection } = route
    const { hosts, listeners } = route.match
    const match = {
      path: { exact: path },
      methods: ['GET', 'POST'],
      ...(hosts && { hosts }),
      ...(listeners && { listeners })
    }
    const [pattern] = pathPatterns(match.path)
    const url = internalUrl()
    const config = { ...route.config, route, matchedPath: mounted(pattern!), ownPath: path }
    register(url, [], {
      url: pattern!.text,
      method: [...match.methods],
      config,
      schema,
      handler: (_request, reply) => void reply.callNotFound()
    })
    const value = { route, url, preflightUrl: null }
    tables.add({ match, pattern: pattern!, priority, answersPreflights: false, protection, value })
  }

  /** Adds a route whose response is made of calls. */
  async function addMade(route: RouteConfig, pattern: PathPattern, methods: string[]): Promise<Target> {
    const url = internalUrl()
    const config = { ...route.config, route, matchedPath: mounted(pattern) }
    const handler = route.portal
      ? (await import('./portal/index.ts')).portalRoute(fastify, route, given)
      : (await import('./compose/index.ts')).composeRoute(fastify, route)
    register(url, paramNames(pattern), { url: pattern.text, method: [...methods], config, handler })
    return { route, url, preflightUrl: addPreflight(route, pattern, methods) }
  }

  async function addProxy(index: number, route: RouteConfig, pattern: PathPattern, methods: string[]): Promise<Target> {
    const url = internalUrl()
    const fault = startFault(file, index, route)
    const module = await moduleOptions(route, fault)
    // Without the mesh, the bridge forwards the WebSockets of these routes.
    const placeholder = forward === undefined ? undefined : unbridged()
    const config = { ...route.config, route, matchedPath: mounted(pattern), ...(placeholder && { placeholder }) }
    const upgrade = placeholder?.handler ?? null
    await registerWith(url, paramNames(pattern), methods, (constraints, methods) =>
      registerHttpProxy(fastify, { route, pattern, url: pattern.text, methods, config, constraints, module, upgrade })
    ).catch((error: Error) => {
      throw fault(error.message, error)
    })
    return { route, url, preflightUrl: addPreflight(route, pattern, methods) }
  }

  function addPreflight(route: RouteConfig, pattern: PathPattern, methods: string[]): string | null {
    if (!route.declared.answersPreflights || methods.includes('OPTIONS')) return null
    const url = internalUrl()
    addBridged(url, route, pattern, ['OPTIONS'], { preflightFor: [...methods] })
    return url
  }

  /** Adds a route whose handler forwards to the mesh through the bridge. */
  function addBridged(
    url: string,
    route: RouteConfig,
    pattern: PathPattern,
    method: string[],
    more: FastifyContextConfig
  ): void {
    const placeholder = unbridged()
    const config = { ...route.config, route, matchedPath: mounted(pattern), placeholder, ...more }
    register(url, paramNames(pattern), { url: pattern.text, method, config, handler: placeholder.handler })
  }
}

export default proxy

type Placeholder = NonNullable<FastifyContextConfig['placeholder']>

/** Returns a placeholder handler, which calls the bridge once the bridge is registered. */
function unbridged(): Placeholder {
  let forward: RouteHandlerMethod = () => {
    throw new Error('no bridge to the mesh is registered')
  }
  return {
    handler: function proxied(request, reply) {
      forward.call(this, request, reply)
      // A handler that wraps this one awaits the response by the reply.
      return reply
    },
    call: (handler) => {
      forward = handler
    }
  }
}

/**
 * Adds Fastify routes under internal URLs. `onRoute` hooks of plugins, `request.routeOptions` and plugins that keep the
 * options, such as @fastify/swagger, see the route's real URL and methods. Only the router, which reads the options after
 * the hooks, gets the internal ones.
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
    // Changed in place: the array must stay the one in the route's options.
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
      // The configuration decides on the methods, including HEAD.
      fastify.route({ ...options, exposeHeadRoute: false, constraints: { [constraint]: url } } as RouteOptions)
      end()
    },
    /** Calls `add`, in which a plugin adds one route with these constraints and methods. */
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
