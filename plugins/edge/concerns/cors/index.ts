/**
 * CORS per route, by @fastify/cors.
 *
 * The plugin is registered in a context of its own, and reads the options of a route from its `config.cors`. Its hook
 * would run on every route of the context; here it is attached to the routes with CORS, at the concern's position.
 *
 * A preflight ends here, before rate limit and authentication: a browser sends it without credentials. One
 * from an origin that is not allowed is answered 204 without any allow header, as rs/cors (Traefik) does, and
 * not passed on as Envoy does by default: the browser refuses the request either way, and the service is not
 * reached unauthenticated. Actual requests of such origins get no CORS headers and are served: CORS protects
 * the browser's user, it is no access control.
 *
 * A WebSocket handshake from an origin that is not allowed is refused: browsers apply no CORS to WebSockets and send
 * the user's cookies with the handshake, so any page could speak as the user (RFC 6455, 10.2). A page of the host that
 * is asked is no other origin.
 */

import type { FastifyCorsOptions } from '@fastify/cors'
import cors from '@fastify/cors'
import createError from '@fastify/error'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FifoMap } from 'toad-cache'
import type { Static } from 'typebox'
import type { Checked } from '../../../../config/concern.ts'
import { pointer } from '../../../../config/faults.ts'
import { DurationOrZero, Either, HeaderName, orOff, strict, Text } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import type { RouteHooks } from '../../concern.ts'
import { edgeConcern } from '../../concern.ts'
import { isWebSocket } from '../../protocol/headers.ts'
import type { OriginTest } from './origins.ts'
import { originFault, originTest } from './origins.ts'

const OriginRefused = createError('JW_ORIGIN_REFUSED', 'Pages of this origin may not open WebSockets here', 403)

/** Reason in the access log of a preflight that is not granted: its status is 204 either way. */
export const corsReason = 'cors_origin'

type Headers = readonly (readonly [name: string, value: string])[]

/** Origins whose response headers are remembered, for each route. */
const mostOrigins = 1000

type Hook = (request: FastifyRequest, reply: FastifyReply, next: (error?: Error) => void) => void

const Cors = Type.Object(
  {
    origin: Either({ type: 'string' }, Text, Type.Array(Text, { minItems: 1 }), {
      description:
        'Allowed origins: `"*"` (all), `https://app.example.com`, `https://*.example.com` (any name below it), `http://localhost:*` (any port), or a regular expression `/^…$/`. A WebSocket handshake from another origin is refused.'
    }),
    methods: Type.Optional(
      Type.Array(Type.String({ pattern: '^([A-Z][A-Z-]*|\\*)$', expected: 'a method in capitals, or *' }), {
        description: "Methods that the response to a preflight allows. Default: the route's methods."
      })
    ),
    allowedHeaders: Type.Optional(
      Type.Array(HeaderName('A header, or `*`.'), {
        description: 'Request headers that the response to a preflight allows. Default: those that it asks for.'
      })
    ),
    exposedHeaders: Type.Optional(Type.Array(HeaderName('A header, or `*`.'))),
    credentials: Type.Boolean({ default: false }),
    maxAge: Type.Optional(DurationOrZero('Time for which a browser may cache the response to a preflight.'))
  },
  strict
)

export type CorsOptions = Static<typeof Cors>

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
  // CORS protects the browser's user; it keeps nobody out.
  protects: false,
  check: checkCors,
  answersPreflights: true,
  ownsHeaders: ['access-control-'],
  setsRouteConfig: 'cors',
  async plugin(fastify) {
    const answerPreflight = await hookOf(fastify, true)
    const addHeaders = await hookOf(fastify, false)
    return (options, route) => {
      const methods = route.config?.preflightFor ?? [route.method].flat()
      const isAllowed = originTest(options.origin)
      const cors = translate(options, methods, isAllowed)
      // A new object, as the one at hand may belong to several routes.
      route.config = { ...route.config, cors }
      return hooksFor(isAllowed, answerPreflight, addHeaders)
    }
  }
})

function checkCors(cors: CorsOptions, at: string, { report }: Checked): void {
  if (!report.sound(at)) return
  const any = [cors.origin].flat().includes('*')
  if (cors.credentials && any) {
    report.fault(`${at}/credentials`, 'browsers refuse credentials for origin "*"; list the origins')
  }
  const single = typeof cors.origin === 'string'
  for (const [index, origin] of [cors.origin].flat().entries()) {
    const fault = originFault(origin)
    if (fault !== null) report.fault(single ? `${at}/origin` : pointer(at, 'origin', index), fault)
  }
}

/**
 * Registers @fastify/cors in a context of its own, without routes, and returns the hook that it adds there. Its route for
 * `OPTIONS *` is left out: preflights find routes by the route table.
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
function hooksFor(isAllowed: OriginTest, answerPreflight: Hook, addHeaders: Hook): RouteHooks {
  const known = new FifoMap<Headers>(mostOrigins)
  /** Headers for requests without an origin, and from those that are not allowed. */
  let ofOthers: Headers | undefined
  /** Lets the plugin add the headers, and remembers them. */
  const askPlugin = (request: FastifyRequest, reply: FastifyReply, isOther: boolean, next: (error?: Error) => void) => {
    // Those that another plugin has set are not the route's.
    const isMixed = Object.keys(reply.getHeaders()).some(isOfCors)
    addHeaders(request, reply, (error) => {
      if (error !== undefined || isMixed) return next(error)
      const added = Object.entries(reply.getHeaders()).filter(([name]) => isOfCors(name)) as Headers
      if (isOther) ofOthers = added
      else known.set(request.headers.origin!, added)
      next()
    })
  }
  /**
   * Adds the headers to the response to an actual request. They depend on its origin alone, so the plugin is asked once
   * for each. (2 µs a request.)
   */
  const addRemembered: Hook = (request, reply, next) => {
    const { origin } = request.headers
    let headers = origin === undefined ? ofOthers : known.get(origin)
    const isOther = headers === undefined && (origin === undefined || !isAllowed(origin))
    if (isOther) headers = ofOthers
    if (headers === undefined) return askPlugin(request, reply, isOther, next)
    for (const [name, value] of headers) reply.header(name, value)
    next()
  }

  const onRequest: Hook = (request, reply, next) => {
    const { origin, upgrade, 'access-control-request-method': asked } = request.headers
    if (request.method !== 'OPTIONS' || !origin || !asked) {
      if (upgrade !== undefined && origin !== undefined && isWebSocket(upgrade)) {
        if (!isAllowed(origin) && !isSameHost(origin, request.host)) return next(new OriginRefused())
      }
      return reply.hasHeader('vary') ? addHeaders(request, reply, next) : addRemembered(request, reply, next)
    }
    // It only goes on when the origin is not allowed; `Vary: Origin` is set by then.
    request.isOwnResponse = true
    answerPreflight(request, reply, (error) => {
      if (error) return next(error)
      // The browser sends no request after this, so that no other line tells the refusal.
      request.refusalReason = corsReason
      reply.code(204).header('content-length', '0').send()
    })
  }

  /** Makes readable what was refused before, by its path for example. */
  const onError = (request: FastifyRequest, reply: FastifyReply, _error: Error, done: () => void): void => {
    if (reply.hasHeader('vary') || reply.hasHeader('access-control-allow-origin')) done()
    else addRemembered(request, reply, done)
  }
  return { onRequest, onError }
}

/**
 * Returns whether a page is of the host that it asks. The scheme is not compared: a proxy that terminates TLS before us
 * may not report it.
 */
function isSameHost(origin: string, host: string): boolean {
  const at = origin.indexOf('://')
  return at !== -1 && host !== '' && origin.slice(at + 3).toLowerCase() === host.toLowerCase()
}

function translate(options: CorsOptions, methods: readonly string[], isAllowed: OriginTest): FastifyCorsOptions {
  const any = [options.origin].flat().includes('*')
  if (any && options.credentials) {
    throw new Error('edge.cors: origin "*" with credentials is refused by every browser; name the origins')
  }
  return {
    // A function, not the list: for an origin not on it, the list would still send the other allow headers.
    origin: any ? '*' : (origin, done) => done(null, origin !== undefined && isAllowed(origin) ? origin : false),
    // The very list, to which methods of a plugin's own routes are added.
    methods: (options.methods ?? methods) as string[],
    credentials: options.credentials,
    ...(options.allowedHeaders && { allowedHeaders: [...options.allowedHeaders] }),
    ...(options.exposedHeaders && { exposedHeaders: [...options.exposedHeaders] }),
    ...(options.maxAge !== undefined && { maxAge: Math.floor(options.maxAge / 1000) })
  }
}
