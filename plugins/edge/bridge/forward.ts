/**
 * The bridge: the handler of configured routes. It dispatches the client's request to the mesh (`fastify.mesh`, the seam),
 * and passes the service's response to the client.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { Config, RouteConfig } from '../../../config/schema.ts'
import { TimeSlice } from '../../time-slices.ts'
import { captureContext, emitInContext, SEALED } from '../async-context.ts'
import { attach, setHandler } from '../attach.ts'
import { EncodedResponse } from './encoded-response.ts'
import type { ResponseRules } from './exchange.ts'
import { relocation } from './location.ts'
import { RawResponse } from './raw-response.ts'
import { guardRepliesOf, proceed } from './reply-guard.ts'
import { ReplyResponse } from './reply-response.ts'
import type { ResponsePath } from './response-path.ts'
import { pathOf } from './response-path.ts'
import { StalledStreams } from './stalled-streams.ts'
import { streamTimeout } from './stream-faults.ts'
import type { UpstreamRequests } from './upstream-request.ts'
import { rulesOf } from './upstream-request.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the response path of a route; null if the route is not proxied. Call it after all plugins have loaded. */
    responsePath: (route: string) => ResponsePath | null
  }
  interface FastifyContextConfig {
    /**
     * Interceptors of the route's calls, outermost first, which run before the seam. They see the request as the service
     * gets it, and may respond in its place. Concerns add them in `onRoute`; routes without them pay nothing.
     */
    callInterceptors?: readonly Dispatcher.DispatcherComposeInterceptor[]
  }
}

export default fp<Config>(
  async (fastify, { listen }) => {
    const requests = fastify.getDecorator<UpstreamRequests>('upstreamRequests')
    const { trust } = requests
    const seam: Dispatcher = fastify.getDecorator('mesh')
    const keepsContext = !fastify.hasDecorator(SEALED)
    const completions: (() => void)[] = []
    const paths = new Map<string, () => ResponsePath>()
    fastify.decorate('responsePath', (route: string) => paths.get(route)?.() ?? null)

    fastify.guardReplies()
    // The last `onRoute` hook, so that it sees the headers that the concerns drop.
    fastify.addHook('onRoute', function (routeOptions) {
      const { route, matchedPath, preflightFor } = routeOptions.config ?? {}
      if (route === undefined || matchedPath === undefined) {
        fastify.guardReplies()
        return
      }
      trust.add(route, routeOptions.config?.dropHeaders ?? [])
      if (keepsContext) {
        attach(routeOptions, 'preParsing', (request, reply, payload, done) => {
          emitInContext(request, reply)
          done(null, payload)
        })
      }
      guardRepliesOf(routeOptions)
      const isEncoded = routeOptions.config?.encodeResponse !== undefined
      const path = () => pathOf(route, this, routeOptions, proceed)
      const { callInterceptors = [] } = routeOptions.config ?? {}
      if (preflightFor === undefined) paths.set(route.name, path)
      // The edge responds to preflights, also on other routes.
      if (route.isBridged || preflightFor !== undefined)
        setHandler(routeOptions, forwardTo(route, matchedPath, path, isEncoded, callInterceptors))
      else if (route.via !== undefined)
        routeOptions.config?.placeholder?.call(forwardTo(route, matchedPath, path, isEncoded, callInterceptors))
    })
    // Deferred to `onReady`, when the dropped headers and the hooks of every route are known.
    fastify.addHook('onReady', async () => {
      const slice = new TimeSlice()
      for (const complete of completions.splice(0)) {
        complete()
        if (slice.isOver) await slice.next()
      }
    })

    function forwardTo(
      route: RouteConfig,
      pattern: PathPattern,
      path: () => ResponsePath,
      isEncoded: boolean,
      interceptors: readonly Dispatcher.DispatcherComposeInterceptor[]
    ) {
      const calls: Pick<Dispatcher, 'dispatch'> = interceptors.length === 0 ? seam : intercepted(seam, interceptors)
      const rules = rulesOf(route, pattern, listen.paths)
      let ExchangeClass: typeof RawResponse | typeof ReplyResponse | typeof EncodedResponse = isEncoded
        ? EncodedResponse
        : RawResponse
      let responseRules: ResponseRules = {
        ownsHeaders: route.declared.ownsHeaders,
        isTransparent: route.isTransparent === true,
        relocate: relocation(route, pattern, (request) => requests.peers.trustedHeadersOf(request)),
        stalls: null,
        errorBodies: null
      }
      completions.push(() => {
        rules.isDropped = trust.filterFor(route)
        const errorBodies = fastify.errorBodies.get(route) ?? null
        if (errorBodies !== null) responseRules = { ...responseRules, errorBodies }
        if (path() === 'raw') return
        ExchangeClass = ReplyResponse
        const idleMs = streamTimeout(fastify, route.name)
        if (idleMs > 0) responseRules = { ...responseRules, stalls: new StalledStreams(idleMs) }
      })
      return (request: FastifyRequest, reply: FastifyReply) => {
        const options = requests.options(request, rules)
        if (keepsContext) captureContext(request)
        const exchange = new ExchangeClass(request, reply, responseRules)
        request.exchange = exchange
        calls.dispatch(options, exchange)
      }
    }
  },
  {
    name: 'jingwei-forward',
    fastify: '5.x',
    dependencies: ['jingwei-errors', 'jingwei-request-state', 'jingwei-reply-guard']
  }
)

/** Returns the calls of a route through its interceptors. (`seam.compose` would copy the whole dispatcher for each route.) */
function intercepted(
  seam: Dispatcher,
  interceptors: readonly Dispatcher.DispatcherComposeInterceptor[]
): Pick<Dispatcher, 'dispatch'> {
  let dispatch: Dispatcher['dispatch'] = (options, handler) => seam.dispatch(options, handler)
  for (const interceptor of interceptors.toReversed()) dispatch = interceptor(dispatch)
  return { dispatch }
}
