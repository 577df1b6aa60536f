/**
 * CORS per route, by @fastify/cors.
 *
 * That plugin works on a whole context and adds a route for `OPTIONS *`. Here it is given a recorder in place
 * of the instance, once per route with the route's options, and the hook it would have added is attached to
 * that route alone.
 *
 * A preflight ends here, before rate limit and authentication: a browser sends it without credentials. One
 * from an origin that is not allowed is answered 204 without any allow header, as rs/cors (Traefik) does, and
 * not passed on as Envoy does by default: the browser refuses the request either way, and the service is not
 * reached unauthenticated. Actual requests of such origins get no CORS headers and are served: CORS protects
 * the browser's user, it is no access control.
 */

import type { FastifyCorsOptions } from '@fastify/cors'
import cors from '@fastify/cors'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { Config, CorsOptions } from '../../config/schema.ts'
import { attach } from './attach.ts'

type Hook = (request: FastifyRequest, reply: FastifyReply, next: (error?: Error) => void) => void

export default fp(
  async (fastify: FastifyInstance, _config: Config) => {
    // The hooks set it, for the `OPTIONS *` route that is not there.
    fastify.decorateRequest('corsPreflightEnabled', false)

    fastify.addHook('onRoute', (routeOptions) => {
      const options = routeOptions.config?.route?.edge.cors
      if (options) attach(routeOptions, 'onRequest', corsHook(routeOptions, options))
    })
  },
  { name: 'jingwei-cors', fastify: '5.x' }
)

function corsHook(routeOptions: RouteOptions, options: CorsOptions): Hook {
  const methods = routeOptions.config?.preflightFor ?? [routeOptions.method].flat()
  const translated = translate(options, [...methods])
  const answerPreflight = record({ ...translated, preflight: true })
  const addHeaders = record({ ...translated, preflight: false })
  const known = new Map([options.origin].flat().map((origin) => [origin, headersFor(addHeaders, origin)]))
  const forOthers = headersFor(addHeaders, undefined)

  return (request, reply, next) => {
    const { origin, 'access-control-request-method': asked } = request.headers
    if (request.method !== 'OPTIONS' || !origin || !asked) {
      if (reply.hasHeader('vary')) return addHeaders(request, reply, next)
      const headers = (origin !== undefined && known.get(origin)) || forOthers
      for (const [name, value] of headers) reply.header(name, value)
      return next()
    }
    // It only goes on when the origin is not allowed; `Vary: Origin` is set by then.
    answerPreflight(request, reply, (error) => {
      if (error) return next(error)
      reply.code(204).header('content-length', '0').send()
    })
  }
}

function translate(options: CorsOptions, methods: string[]): FastifyCorsOptions {
  const any = options.origin === '*' || options.origin.includes('*')
  if (any && options.credentials) {
    throw new Error('edge.cors: origin "*" with credentials is refused by every browser; name the origins')
  }
  const allowed = new Set(options.origin)
  return {
    // A function, not the list: for an origin not on it, the list would still send the other allow headers.
    origin: any ? '*' : (origin, done) => done(null, origin !== undefined && allowed.has(origin) ? origin : false),
    methods: options.methods ?? methods,
    credentials: options.credentials,
    ...(options.allowedHeaders && { allowedHeaders: [...options.allowedHeaders] }),
    ...(options.exposedHeaders && { exposedHeaders: [...options.exposedHeaders] }),
    ...(options.maxAge !== undefined && { maxAge: Math.floor(options.maxAge / 1000) })
  }
}

/**
 * What the plugin adds to the answer to an actual request: that depends on its origin alone, so it is asked once for each.
 * (2 µs a request.)
 */
function headersFor(hook: Hook, origin: string | undefined): readonly (readonly [name: string, value: string])[] {
  const headers: [string, string][] = []
  const request = { headers: { origin }, raw: { method: 'GET' }, routeOptions: {} }
  const reply = {
    getHeader() {},
    header: (name: string, value: string) => headers.push([name.toLowerCase(), value])
  }
  hook(request as unknown as FastifyRequest, reply as unknown as FastifyReply, (error) => {
    if (error) throw error
  })
  return headers
}

/** The hook that @fastify/cors adds for these options. */
function record(options: FastifyCorsOptions): Hook {
  const hooks: Hook[] = []
  const recorder = {
    decorateRequest() {},
    options() {},
    addHook(_name: string, hook: Hook) {
      hooks.push(hook)
    }
  }
  cors(recorder as unknown as FastifyInstance, options, (error) => {
    if (error) throw error
  })
  const [hook] = hooks
  if (hook === undefined) throw new Error('@fastify/cors added no hook')
  return hook
}
