// A Fastify with edge concerns and routes that respond with the data that the service would receive.
import type { FastifyInstance, FastifyPluginAsync, FastifyServerOptions, HTTPMethods } from 'fastify'
import Fastify from 'fastify'
import type { Config, EdgePolicy, RouteConfig } from '../../../config/schema.ts'
import { headerFilter } from '../../../plugins/edge/bridge/upstream-headers.ts'
import type { CorsOptions } from '../../../plugins/edge/concerns/cors/index.ts'
import cors from '../../../plugins/edge/concerns/cors/index.ts'
import jwt from '../../../plugins/edge/concerns/jwt/index.ts'
import type { JwtOptions } from '../../../plugins/edge/concerns/jwt/options.ts'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import type { RateLimitOptions } from '../../../plugins/edge/concerns/rate-limit/options.ts'

export interface TestRoute {
  name: string
  edge: EdgePolicy
  method?: HTTPMethods[]
  preflightOnly?: boolean
  /** More Fastify routes for the same configured route. */
  also?: string[]
}

export const corsOptions = (more: Partial<CorsOptions> = {}): CorsOptions => ({
  origin: ['https://app.example.com'],
  credentials: false,
  ...more
})

export const jwtOptions = (more: Partial<JwtOptions>): JwtOptions => ({
  jwksMaxAge: 600_000,
  jwksCooldown: 30_000,
  clockSkew: 5000,
  rememberTokens: 20_000,
  maxTokenSize: 8192,
  ...more
})

export const limitOptions = (more: Partial<RateLimitOptions> = {}): RateLimitOptions => ({
  max: 2,
  window: 60_000,
  by: 'ip',
  store: 'memory',
  ...more
})

export interface AppOptions {
  redis?: Config['redis']
  server?: FastifyServerOptions
  before?: (fastify: FastifyInstance) => void
}

export async function edgeApp(routes: TestRoute[], options: AppOptions = {}): Promise<FastifyInstance> {
  const fastify = Fastify({ exposeHeadRoutes: false, ...options.server })
  const configured = routes.map(({ name, edge }) => ({ name, edge }) as unknown as RouteConfig)
  const config = { file: '/nowhere/gateway.yaml', routes: configured, redis: options.redis } as unknown as Config
  options.before?.(fastify)
  fastify.decorateRequest('consumer', null)
  for (const { plugin } of [cors, rateLimit, jwt]) await fastify.register(plugin as FastifyPluginAsync<Config>, config)
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
