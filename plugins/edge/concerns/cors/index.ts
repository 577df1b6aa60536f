/**
 * CORS per route, by @fastify/cors.
 *
 * The plugin is registered in a context of its own, and reads the options of a route from its `config.cors`. Its hook
 * would run on every route of that context; here it is attached to the routes with CORS, at the concern's position.
 *
 * Preflights get their response here, before rate limit and authentication, because browsers send them without
 * credentials. A preflight from an origin that is not allowed gets 204 without allow headers, as in rs/cors (Traefik). It is
 * not forwarded, as Envoy does by default: the browser refuses the request either way, and no unauthenticated request
 * should reach the service. Actual requests from such origins get no CORS headers but are served: CORS protects the user
 * of the browser and is no access control.
 *
 * A WebSocket handshake from an origin that is not allowed is refused, unless the origin is the requested host. Browsers do
 * not apply CORS to WebSockets and send the user's cookies, so any page could act as the user (RFC 6455, 10.2).
 */

import type { FastifyCorsOptions } from '@fastify/cors'
import cors from '@fastify/cors'
import createError from '@fastify/error'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FifoMap } from 'toad-cache'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { orOff } from '../../../../config/schema/kit.ts'
import { edgeRouteOf, isHidden } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import type { RecordRefusal } from '../../concern-refusals.ts'
import { NotFound } from '../../errors.ts'
import { isWebSocket } from '../../protocol/headers.ts'
import type { OriginTest } from '../../protocol/origins.ts'
import { originFault, originTest } from '../../protocol/origins.ts'
import type { RouteHooks } from '../../route-hooks.ts'
import type { CorsOptions } from './options.ts'
import { Cors } from './options.ts'

const OriginRefused = createError('JW_ORIGIN_REFUSED', 'Pages of this origin may not open WebSockets here', 403)

/** Reason in the access log for a preflight that is not granted, since its status is 204 as well. */
export const corsReason = 'cors_origin'

type Headers = readonly (readonly [name: string, value: string])[]

/** Origins per route whose response headers are cached. */
const cachedOrigins = 1000
const longestCached = 300
const allowPrivateNetwork = 'access-control-allow-private-network'

type Hook = (request: FastifyRequest, reply: FastifyReply, next: (error?: Error) => void) => void

declare module 'fastify' {
  interface FastifyContextConfig {
    /** Options of @fastify/cors for the route. */
    cors?: FastifyCorsOptions
  }
}

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    cors?: CorsOptions | false
  }
}

export default edgeConcern({
  name: 'cors',
  options: orOff(Cors),
  aliases: { globalcors: 'write edge.cors' },
  innerAliases: {
    'allowOrigins|allowOrigin|allowOriginsByRegex|accessControlAllowOriginList|accessControlAllowOriginListRegex':
      'write origin',
    'allowMethods|accessControlAllowMethods': 'write methods',
    'allowHeaders|headers|accessControlAllowHeaders': 'write allowedHeaders',
    'exposeHeaders|exposeHeader': 'write exposedHeaders',
    'allowCredential|accessControlAllowCredentials': 'write credentials',
    allowPrivateNetwork: 'write privateNetwork'
  },
  // CORS protects the user of the browser; it is no access control.
  protects: false,
  check: checkCors,
  answersPreflights: true,
  ownsHeaders: ['access-control-'],
  setsRouteConfig: 'cors',
  explain(options, { method, headers: given }) {
    const named = Object.entries(given).map(([name, value]) => [name.toLowerCase(), value] as const)
    const { host = '', ...headers } = Object.fromEntries(named) as Record<string, string>
    const { origin } = headers
    if (origin === undefined) return 'allows: no Origin'
    const request = { method, headers, host }
    const isAllowed = originTest(options.origin)
    if (isPreflight(request)) {
      return isAllowed(origin)
        ? 'responds to the preflight: the origin is allowed'
        : `does not grant the preflight: ${corsReason}`
    }
    if (isForeignWebSocket(request, isAllowed)) return `refuses the WebSocket: ${corsReason}`
    if (isAllowed(origin)) return 'allows: the origin is allowed'
    return 'allows: the origin is not allowed, so the browser withholds the response from the page'
  },
  async plugin(fastify) {
    const answerPreflight = await hookOf(fastify, true)
    const addHeaders = await hookOf(fastify, false)
    return (options, route, shadow, refused) => {
      const methods = route.config?.preflightFor ?? [route.method].flat()
      const isAllowed = originTest(options.origin)
      if (shadow !== null) return { onRequest: watchOrigins(isAllowed, shadow) }
      const cors = translate(options, methods, isAllowed)
      // A copy, because several routes may share the object.
      route.config = { ...route.config, cors }
      return hooksFor(isAllowed, answerPreflight, addHeaders, refused, options.privateNetwork)
    }
  }
})

function checkCors(cors: CorsOptions, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  const single = typeof cors.origin === 'string'
  for (const [index, origin] of [cors.origin].flat().entries()) {
    const fault = originFault(origin)
    if (fault !== null) report.fault(single ? `${at}/origin` : pointer(at, 'origin', index), fault)
  }
  if (report.sound(at)) warnOfAnybody(cors, at, report)
}

/** An origin that nobody allows on purpose. */
const anyOrigin = 'https://any-page.invalid'

function warnOfAnybody(cors: CorsOptions, at: string, report: Checked['report']): void {
  const { origin, credentials, privateNetwork } = cors
  const isAllowed = originTest(origin)
  // Any page can have the origin "null": that of a frame with `sandbox`.
  const why = isAllowed(anyOrigin) ? '' : ': any page can have the origin "null"'
  if (why === '' || isAllowed('null')) {
    if (credentials)
      report.warn(`${at}/credentials`, `any page on the web can act as the logged-in user${why}; list the origins`)
    if (privateNetwork)
      report.warn(`${at}/privateNetwork`, `any page on the web can call the private network${why}; list the origins`)
  }
  for (const key of ['methods', 'allowedHeaders', 'exposedHeaders'] as const) {
    const index = cors[key]?.indexOf('*') ?? -1
    if (!credentials || index === -1) continue
    report.warn(
      pointer(at, key, index),
      'with credentials, browsers take "*" for a name (Fetch, 3.3.2): list the names'
    )
  }
}

/**
 * Registers @fastify/cors in a context of its own, without routes, and returns the hook that it adds there. Its
 * `OPTIONS *` route is not added: the route table matches preflights to routes.
 */
async function hookOf(fastify: FastifyInstance, preflight: boolean): Promise<Hook> {
  const hooks: Hook[] = []
  await fastify.register(async (child) => {
    Object.assign(child, {
      addHook: (_name: string, hook: Hook) => {
        hooks.push(hook)
        return child
      },
      options: () => child
    })
    await child.register(cors, { preflight })
  })
  const [hook] = hooks
  if (hook === undefined) throw new Error('@fastify/cors added no hook')
  return hook
}

const isOfCors = (name: string) => name === 'vary' || name.startsWith('access-control-')

/** Returns the hooks of a route that has `config.cors`. */
function hooksFor(
  isAllowed: OriginTest,
  answerPreflight: Hook,
  addHeaders: Hook,
  refused: RecordRefusal,
  privateNetwork: boolean
): RouteHooks {
  const known = new FifoMap<Headers>(cachedOrigins)
  /** Headers for requests without an origin, or with an origin that is not allowed. */
  let otherHeaders: Headers | undefined
  /** Lets the plugin add the headers, and caches them. */
  const addByPlugin = (
    request: FastifyRequest,
    reply: FastifyReply,
    isOther: boolean,
    next: (error?: Error) => void
  ) => {
    // Headers set by another plugin must not be cached for the route.
    const isMixed = Object.keys(reply.getHeaders()).some(isOfCors)
    addHeaders(request, reply, (error) => {
      if (error !== undefined || isMixed) return next(error)
      const added = Object.entries(reply.getHeaders()).filter(([name]) => isOfCors(name)) as Headers
      if (isOther) otherHeaders = added
      else if (request.headers.origin!.length <= longestCached) known.set(request.headers.origin!, added)
      next()
    })
  }
  /**
   * Adds the headers to the response to an actual request. They depend only on its origin, so the plugin is called once per
   * origin. (This saves 2 µs per request.)
   */
  const addCached: Hook = (request, reply, next) => {
    const { origin } = request.headers
    let headers = origin === undefined ? otherHeaders : known.get(origin)
    const isOther = headers === undefined && (origin === undefined || !isAllowed(origin))
    if (isOther) headers = otherHeaders
    if (headers === undefined) return addByPlugin(request, reply, isOther, next)
    for (const [name, value] of headers) reply.header(name, value)
    next()
  }

  const onRequest: Hook = (request, reply, next) => {
    if (!isPreflight(request)) {
      if (isForeignWebSocket(request, isAllowed)) return next(new OriginRefused())
      return reply.hasHeader('vary') ? addHeaders(request, reply, next) : addCached(request, reply, next)
    }
    // The callback runs only if the origin is not allowed; `Vary: Origin` is set by then.
    const { origin = '', 'access-control-request-private-network': asks } = request.headers
    if (privateNetwork && asks === 'true' && isAllowed(origin)) reply.header(allowPrivateNetwork, 'true')
    request.isOwnResponse = true
    answerPreflight(request, reply, (error) => {
      if (error) return next(error)
      // The browser sends no request after this, so no other log line would show the refusal.
      request.refusalReason = corsReason
      refused(request, 'JW_ORIGIN_REFUSED')
      reply.code(204).header('content-length', '0').send()
    })
  }

  /** Adds the headers to errors of earlier concerns, so that scripts of allowed origins can read these. */
  const onError = (request: FastifyRequest, reply: FastifyReply, error: Error, done: () => void): void => {
    // A hidden route has the response for a path without a route, also to a request that is refused before it is hidden.
    const route = edgeRouteOf(request.routeOptions.config)
    const hides = route !== undefined && isHidden(route, request)
    const isSet = reply.hasHeader('vary') || reply.hasHeader('access-control-allow-origin')
    if (error instanceof NotFound || hides || isSet) done()
    else addCached(request, reply, done)
  }
  return { onRequest, onError }
}

/** The properties of a request that decide. */
type Asking = Pick<FastifyRequest, 'method' | 'headers' | 'host'>

const isPreflight = ({ method, headers }: Asking): boolean =>
  method === 'OPTIONS' && Boolean(headers.origin) && Boolean(headers['access-control-request-method'])

/** Returns whether a request is a WebSocket handshake from another host's page whose origin is not allowed. */
function isForeignWebSocket({ headers: { origin, upgrade }, host }: Asking, isAllowed: OriginTest): boolean {
  if (upgrade === undefined || origin === undefined || !isWebSocket(upgrade)) return false
  return !isAllowed(origin) && !isSameHost(origin, host)
}

/**
 * Returns the hook of a route in shadow mode. It only records the preflights and WebSocket handshakes that would be refused:
 * header fields beside those of the service would make browsers refuse the response.
 */
function watchOrigins(isAllowed: OriginTest, record: RecordRefusal): Hook {
  return (request, _reply, next) => {
    const isRefused = isPreflight(request)
      ? !isAllowed(request.headers.origin!)
      : isForeignWebSocket(request, isAllowed)
    if (isRefused) {
      record(request, 'JW_ORIGIN_REFUSED', corsReason)
    }
    next()
  }
}

/**
 * Returns whether an origin is the requested host. The scheme is not compared, because a proxy that terminates TLS may not
 * report it.
 */
function isSameHost(origin: string, host: string): boolean {
  const at = origin.indexOf('://')
  return at !== -1 && host !== '' && origin.slice(at + 3).toLowerCase() === host.toLowerCase()
}

function translate(options: CorsOptions, methods: readonly string[], isAllowed: OriginTest): FastifyCorsOptions {
  const any = [options.origin].flat().includes('*')
  return {
    // A function instead of a list: for an origin that is not in a list, the plugin sends the other allow headers.
    // Browsers refuse `*` with credentials, so the origin is named then.
    origin:
      any && !options.credentials
        ? '*'
        : (origin, done) => done(null, origin !== undefined && isAllowed(origin) ? origin : false),
    // Not a copy: methods of a plugin's own routes are added to this list later.
    methods: (options.methods ?? methods) as string[],
    credentials: options.credentials,
    ...(options.allowedHeaders && { allowedHeaders: [...options.allowedHeaders] }),
    ...(options.exposedHeaders && { exposedHeaders: [...options.exposedHeaders] }),
    ...(options.maxAge !== undefined && { maxAge: Math.floor(options.maxAge / 1000) })
  }
}
