/**
 * The bridge: the one place of the edge that touches the seam. It hands the client's request to the dispatcher, and the
 * response of the service to the client.
 */
import type { FastifyReply, FastifyRequest, RouteHandlerMethod, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import type { RouteConfig } from '../../../config/schema.ts'
import { captureContext, emitInContext, SEALED } from '../async-context.ts'
import { attach } from '../attach.ts'
import type { ResponseRules } from './exchange.ts'
import { relocation } from './location.ts'
import { RawResponse } from './raw-response.ts'
import type { UpstreamRequests } from './upstream-request.ts'
import { rulesOf } from './upstream-request.ts'

export default fp(
  async (fastify) => {
    const requests = fastify.getDecorator<UpstreamRequests>('upstreamRequests')
    const { trust } = requests
    const seam: Dispatcher = fastify.getDecorator('mesh')
    const keepsContext = !fastify.hasDecorator(SEALED)
    const completions: (() => void)[] = []

    // Last of the `onRoute` hooks, so that it sees which headers the other concerns drop.
    fastify.addHook('onRoute', (routeOptions) => {
      const route = routeOptions.config?.route
      if (route === undefined) return
      trust.add(route, routeOptions.config?.dropHeaders ?? [])
      if (keepsContext) {
        attach(routeOptions, 'preParsing', (request, reply, payload, done) => {
          emitInContext(request, reply)
          done(null, payload)
        })
      }
      // Preflights are the edge's on any route.
      if (route.via === undefined || routeOptions.config?.preflightFor !== undefined)
        place(routeOptions, forwardTo(route))
    })
    // Only now has every route said which headers it drops.
    fastify.addHook('onReady', async () => {
      for (const complete of completions.splice(0)) complete()
    })

    function forwardTo(route: RouteConfig) {
      const rules = rulesOf(route)
      completions.push(() => {
        rules.isDropped = trust.filterFor(route)
      })
      const responses: ResponseRules = {
        ownsCors: Boolean(route.edge.cors),
        relocate: relocation(route, requests.believed)
      }
      return (request: FastifyRequest, reply: FastifyReply) => {
        const options = requests.options(request, rules)
        if (keepsContext) captureContext(request)
        const exchange = new RawResponse(request, reply, responses)
        request.exchange = exchange
        seam.dispatch(options, exchange)
      }
    }
  },
  { name: 'jingwei-forward', fastify: '5.x', dependencies: ['jingwei-errors', 'jingwei-request-state'] }
)

/** Makes `handler` that of the route. Handlers that plugins have put around the route's stay around it. */
function place(routeOptions: RouteOptions, handler: RouteHandlerMethod): void {
  const placeholder = routeOptions.config?.placeholder
  if (placeholder === undefined || routeOptions.handler === placeholder.handler) routeOptions.handler = handler
  else placeholder.call(handler)
}
