/** Entry of composed routes; loaded with the first one. */
import type { FastifyInstance, RouteHandlerMethod } from 'fastify'
import type { RouteConfig } from '../../config/schema.ts'
import { composed } from './handler.ts'
import { compilePlan } from './plan.ts'

type Filter = ReturnType<FastifyInstance['upstreamRequests']['trust']['filterFor']>

/** Returns the handler of a composed route. */
export function composeRoute(fastify: FastifyInstance, route: RouteConfig): RouteHandlerMethod {
  let filter: Filter | undefined
  const isDropped = (header: string) => {
    // Read with the first request: then all routes and the headers that they set for services are known.
    if (filter === undefined) filter = fastify.upstreamRequests.trust.filterFor(route)
    return filter?.(header) === true
  }
  const missing = fastify.meter.counter({
    name: 'jingwei_edge_missing_parts_total',
    help: 'Composed responses that were sent without the part of a call.',
    labelNames: ['route', 'call']
  })
  return composed(compilePlan(route, isDropped, (call) => missing.labels(route.name, call)))
}
