// A Fastify with the edge concerns of a test, and routes that respond with the data that the service would receive.

import type { FastifyInstance, FastifyPluginAsync, FastifyServerOptions, HTTPMethods } from 'fastify'
import Fastify from 'fastify'
import type { Config, EdgePolicy, RouteConfig } from '../../../config/schema.ts'
import { headerFilter } from '../../../plugins/edge/bridge/upstream-headers.ts'
import { decorateConsumer } from '../../../plugins/edge/consumers/consumer.ts'

export interface TestRoute {
  name: string
  edge: EdgePolicy
  method?: HTTPMethods[]
  preflightOnly?: boolean
  /** More Fastify routes for the same configured route. */
  also?: string[]
}

export interface AppOptions {
  redis?: Config['redis']
  server?: FastifyServerOptions
  before?: (fastify: FastifyInstance) => void
}

/** Returns a function that builds a Fastify with these concerns, in this order. */
export const edgeAppWith =
  (...concerns: { readonly plugin: unknown }[]) =>
  (routes: TestRoute[], options?: AppOptions) =>
    build(concerns, routes, options)

async function build(
  concerns: { readonly plugin: unknown }[],
  routes: TestRoute[],
  options: AppOptions = {}
): Promise<FastifyInstance> {
  const fastify = Fastify({ exposeHeadRoutes: false, ...options.server })
  const configured = routes.map(({ name, edge }) => ({ name, edge }) as unknown as RouteConfig)
  const config = {
    file: '/nowhere/gateway.yaml',
    edge: {},
    routes: configured,
    listeners: [{ name: 'default' }],
    consumers: { file: null, digest: null, stored: null, list: [] },
    redis: options.redis
  } as unknown as Config
  options.before?.(fastify)
  decorateConsumer(fastify)
  for (const { plugin } of concerns) await fastify.register(plugin as FastifyPluginAsync<Config>, config)
  routes.forEach(({ name, method = ['GET', 'POST'], preflightOnly, also = [] }, index) => {
    for (const url of [`/${name}`, ...also]) {
      const config = { route: configured[index]! }
      if (preflightOnly) {
        const preflight = { ...config, preflightFor: method }
        fastify.route({ method: ['OPTIONS'], url, config: preflight, handler: async () => 'not reached' })
      }
      fastify.route({
        method: [...method],
        url,
        config,
        handler: async (request) => {
          const drops = headerFilter(request.routeOptions.config.dropHeaders)
          return {
            user: request.user ?? null,
            consumer: request.consumer,
            added: request.upstreamHeaders,
            passed: Object.keys(request.headers).filter((header) => !drops?.(header))
          }
        }
      })
    }
  })
  return fastify
}

export const code = (response: { json(): unknown }): unknown => (response.json() as { code?: unknown }).code
