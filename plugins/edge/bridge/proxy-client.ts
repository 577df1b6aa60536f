/**
 * Lets @fastify/http-proxy and @fastify/reply-from call services over the mesh: a client for their option `undici`, and
 * matching options for `reply.from()`. They add what reply-from lacks as a gateway. On its own, reply-from does not abort a
 * call when the client disconnects before the response, adds no forwarding headers, forwards hop-by-hop fields, has no
 * caller and no policy, turns most failures into 500, and retries on its own.
 *
 * reply-from does not pass the request to its client. `rewriteRequestHeaders`, which gets the request, stores it in the
 * headers under a symbol.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { IncomingHttpHeaders as Http2Headers } from 'node:http2'
import type { Readable } from 'node:stream'
import { Stream } from 'node:stream'
import type { FastifyHttpProxyOptions } from '@fastify/http-proxy'
import type {
  FastifyInstance,
  FastifyReply,
  FastifyRequest,
  RawServerBase,
  RequestGenericInterface,
  RouteGenericInterface
} from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { Config, RouteConfig } from '../../../config/schema.ts'
import { captureContext, SEALED } from '../async-context.ts'
import { attach, edgeRouteOf } from '../attach.ts'
import { callerOf } from '../request-trace.ts'
import type { Relocate } from './location.ts'
import { relocation } from './location.ts'
import { ProxyExchange } from './proxy-exchange.ts'
import type { HeaderRules, RequestRules, UpstreamRequests } from './upstream-request.ts'
import { bodyOf, hostFor, rulesOf } from './upstream-request.ts'

type ReplyOptions = NonNullable<FastifyHttpProxyOptions['replyOptions']>
type RewriteRequestHeaders = NonNullable<ReplyOptions['rewriteRequestHeaders']>

/** Options of `reply.from()`, with their names in http-proxy's `replyOptions`. */
interface ProxyReplyOptions {
  readonly rewriteRequestHeaders: (
    request: FastifyRequest<RequestGenericInterface, RawServerBase>,
    headers: Http2Headers | IncomingHttpHeaders
  ) => Http2Headers | IncomingHttpHeaders
  readonly onError: (reply: FastifyReply<RouteGenericInterface, RawServerBase>, error: { error: Error }) => void
  readonly retryDelay: () => null
}

/**
 * The methods of undici's `Dispatcher` that reply-from uses. The types belong to no version of undici, since reply-from has
 * one of its own, and are not imported from http-proxy, whose declarations need `@types/ws`.
 */
interface ProxyClient {
  request(...args: never[]): never
  /** Does nothing: the mesh owns the connections. */
  readonly destroy: () => void
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Client for `undici` of @fastify/http-proxy and @fastify/reply-from: calls go over the mesh. */
    proxyClient: ProxyClient
    /** Options of `reply.from()` that `proxyClient` needs: `replyOptions` of @fastify/http-proxy. */
    proxyReplyOptions: ProxyReplyOptions
  }
  interface FastifyRequest {
    /** State for `proxyClient`; null on routes of the bridge. */
    proxied: Proxied | null
  }
}

interface Proxied {
  readonly reply: FastifyReply
  /** Body of a GET or HEAD; reply-from refuses such bodies. */
  body: unknown
}

const REQUEST = Symbol('jingwei.request')

type MarkedHeaders = IncomingHttpHeaders & { [REQUEST]?: FastifyRequest }

type Callback = (error: Error | null, data: Dispatcher.ResponseData) => void

/** Wraps undici's handler of a call, which passes the response to reply-from. */
type Wrap = (handler: Dispatcher.DispatchHandler) => Dispatcher.DispatchHandler
type WrappedOptions = Dispatcher.DispatchOptions & { wrap: Wrap }

/** Rules of a configured route. */
interface RouteRules extends RequestRules {
  /** Translates `Location` back; null if the route changes neither path nor host. */
  readonly relocate: Relocate | null
}

const HTTP_PROXY = '@fastify/http-proxy'

export default fp<Config>(
  async (fastify, config) => {
    const seam: Dispatcher = fastify.getDecorator('mesh')
    const requests: UpstreamRequests = fastify.getDecorator('upstreamRequests')
    const keepsContext = !fastify.hasDecorator(SEALED)
    const rulesByPath = new WeakMap<PathPattern, RouteRules>()
    const rulesByService = new Map<string, HeaderRules>()
    fastify.decorateRequest('proxied', null)

    const wrapping = seam.compose((dispatch) => (options, handler) => {
      const { wrap, ...rest } = options as WrappedOptions
      return dispatch(rest, wrap(handler))
    })

    function request(given: Dispatcher.RequestOptions, done: Callback): void {
      const headers = given.headers as MarkedHeaders
      const { [REQUEST]: request } = headers
      if (request === undefined || request.proxied === null) {
        const advice = 'pass replyOptions: fastify.proxyReplyOptions, or these to reply.from()'
        done(new Error(`fastify.proxyClient does not know the request; ${advice}`), null as never)
        return
      }
      const { reply, body } = request.proxied
      const { config } = request.routeOptions
      const { route, matchedPath } = config
      if (keepsContext) captureContext(request)
      const rules = route === undefined ? undefined : rulesOfRoute(route, matchedPath!)
      const wrap: Wrap = (handler) => {
        const ownsHeaders = edgeRouteOf(config)?.declared.ownsHeaders ?? []
        const exchange = new ProxyExchange(request, reply, { ownsHeaders, relocate: rules?.relocate ?? null }, handler)
        request.exchange = exchange
        return exchange
      }
      const options = {
        origin: given.origin,
        // reply-from normalizes the path; `path.strip` and `path.rewrite` of a route apply to what the client sent.
        path: rules?.rewrite ? rules.rewrite(request.raw.url!) : given.path,
        method: given.method,
        headers: pairsOf(headers),
        body: bodyFor(request, given.body, body),
        ...callerOf(request),
        ...(rules && { route: rules.route }),
        ...(rules?.policy && { mesh: rules.policy }),
        wrap
      }
      wrapping.request(options as Dispatcher.RequestOptions, (error, data) => {
        try {
          done(error, data)
        } catch (slip) {
          // Thrown by a function of the user. undici would let it end the process.
          fail(reply, slip, data?.body)
        }
      })
    }

    const rewriteRequestHeaders: RewriteRequestHeaders = (request, given) => {
      const headers = given as MarkedHeaders
      // A function of the user may have called this one already.
      if (headers[REQUEST] === request) return headers
      const caller = request as unknown as FastifyRequest
      const { route, matchedPath } = caller.routeOptions.config
      const service = /^(.+)\.mesh$/.exec(headers.host ?? '')?.[1] ?? ''
      const rules = route === undefined ? rulesOfService(service) : rulesOfRoute(route, matchedPath!)
      return mark(requests.rewritten(caller, rules, headers), caller)
    }

    function rulesOfRoute(route: RouteConfig, pattern: PathPattern): RouteRules {
      let rules = rulesByPath.get(pattern)
      if (rules === undefined) {
        // With the mesh, a route of http-proxy changes neither path nor host by the gateway's own keys.
        const isForwarded = config.forward !== undefined
        const relocate = isForwarded ? relocation(route, pattern, (raw) => requests.peers.trustedHeadersOf(raw)) : null
        const isDropped = requests.trust.filterFor(route)
        rules = { ...rulesOf(route, pattern, config.listen.paths), isDropped, relocate }
        rulesByPath.set(pattern, rules)
      }
      return rules
    }

    function rulesOfService(service: string): HeaderRules {
      let rules = rulesByService.get(service)
      if (rules === undefined) {
        rules = {
          strippedPrefix: null,
          host: hostFor(config.edge),
          isTransparent: false,
          isDropped: requests.trust.filterFor({ services: [service] })
        }
        // Names that are not configured come from functions, and their number is not limited: do not cache them.
        if (Object.hasOwn(config.services, service)) rulesByService.set(service, rules)
      }
      return rules
    }

    const proxyClient: ProxyClient = { request: request as unknown as ProxyClient['request'], destroy() {} }
    const proxyReplyOptions: ProxyReplyOptions = {
      rewriteRequestHeaders,
      // reply-from wraps the error.
      onError: (reply, { error }) => void reply.send(error.cause ?? error),
      // The mesh retries.
      retryDelay: () => null
    }
    fastify.decorate('proxyClient', proxyClient)
    fastify.decorate('proxyReplyOptions', proxyReplyOptions)

    // All routes except those of the bridge may call `reply.from()`.
    fastify.addHook('onRoute', (routeOptions) => {
      const route = routeOptions.config?.route
      if (route !== undefined && route.via === undefined) return
      attach(routeOptions, 'onRequest', (request, reply, done) => {
        request.proxied = { reply, body: undefined }
        done()
      })
    })

    fastify.addHook('onRegister', (instance, options) => {
      if (instance.pluginName === HTTP_PROXY) completeOptions(instance, options as FastifyHttpProxyOptions)
    })

    /** Completes the options of http-proxy if its upstream is a service of the mesh. */
    function completeOptions(
      instance: FastifyInstance,
      options: FastifyHttpProxyOptions & { websocket?: boolean }
    ): void {
      if (options.undici === undefined && isService(options.upstream)) options.undici = proxyClient
      if (options.undici !== proxyClient) return
      const { wsUpstream } = options as { wsUpstream?: string }
      if (options.websocket && (wsUpstream === undefined || isService(wsUpstream))) {
        throw new Error(
          `${HTTP_PROXY} connects WebSockets without the mesh, and ${options.upstream} is not an address: set wsUpstream, or serve WebSockets by a route of the configuration`
        )
      }
      // The access log already has a line for each request.
      options.disableRequestLogging ??= true
      options.replyOptions = withOurs(options.replyOptions)
      instance.addHook('preHandler', (request, _reply, done) => {
        const { method } = request
        if ((method === 'GET' || method === 'HEAD') && request.body instanceof Stream) {
          request.proxied!.body = request.body
          request.body = undefined
        }
        done()
      })
    }

    /** Adds the gateway's options to those of a registration, which win. Its `rewriteRequestHeaders` gets the headers for the service. */
    function withOurs(own: ReplyOptions = {}): ReplyOptions {
      const { rewriteRequestHeaders: rewrite, onResponse } = own
      const all: ReplyOptions = { ...proxyReplyOptions, ...own }
      if (rewrite !== undefined && rewrite !== rewriteRequestHeaders) {
        all.rewriteRequestHeaders = (request, headers) =>
          mark(rewrite(request, rewriteRequestHeaders(request, headers)), request as unknown as FastifyRequest)
      }
      if (onResponse !== undefined) {
        all.onResponse = (request, reply, response) => {
          // reply-from does not wait for promises.
          const promise: unknown = onResponse(request, reply, response)
          if (promise instanceof Promise) {
            promise.catch((slip) => fail(reply as unknown as FastifyReply, slip, response.stream))
          }
        }
      }
      return all
    }
  },
  { name: 'jingwei-proxy-client', fastify: '5.x', dependencies: ['jingwei-errors', 'jingwei-request-state'] }
)

const isService = (upstream: string | undefined) => upstream !== undefined && /^\w+:\/\/[^/]+\.mesh\/?$/.test(upstream)

/** Ends a call after a function of the user has failed to handle its response. */
function fail(reply: FastifyReply, slip: unknown, body: Readable | undefined): void {
  if (reply.sent) reply.log.error({ err: slip }, "a plugin's replyOptions function failed after the response was sent")
  else void reply.send(slip)
  body?.on('error', () => {}).destroy()
}

function mark(headers: object, request: FastifyRequest): MarkedHeaders {
  return Object.assign(headers, { [REQUEST]: request })
}

function pairsOf(headers: IncomingHttpHeaders): string[] {
  const pairs: string[] = []
  for (const name in headers) {
    const value = headers[name]
    if (Array.isArray(value)) for (const each of value) pairs.push(name, each)
    // reply-from sets removed headers to undefined.
    else if (value !== undefined) pairs.push(name, String(value))
  }
  return pairs
}

/**
 * Returns the body for the service. reply-from passes `''` if there is no body, but also if Fastify has not read it: for a
 * GET, and for HTTP/2 without type and length.
 */
function bodyFor(
  { raw, body }: FastifyRequest,
  given: Dispatcher.DispatchOptions['body'],
  kept: unknown
): Dispatcher.DispatchOptions['body'] {
  if (given !== '') return given === body ? bodyOf({ raw, body }) : given
  if (kept !== undefined) return bodyOf({ raw, body: kept })
  return body === undefined && !raw.readableDidRead ? bodyOf({ raw, body: raw }) : null
}
