/**
 * A gateway as many teams write it: Fastify and @fastify/http-proxy, with one address per service.
 * migrated-gateway.ts is the same gateway as a plugin.
 */
import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Fastify from 'fastify'

const { ORDERS_URL = 'http://127.0.0.1:9101', USERS_URL = 'http://127.0.0.1:9102', API_KEY = 'demo' } = process.env

export async function build(): Promise<FastifyInstance> {
  const fastify = Fastify({ logger: true })

  await fastify.register(httpProxy, { prefix: '/orders', upstream: ORDERS_URL, rewritePrefix: '/orders' })

  await fastify.register(httpProxy, {
    prefix: '/users/:id',
    rewritePrefix: '/v2/users/:id',
    upstream: USERS_URL,
    preHandler: requireKey
  })

  await fastify.register(httpProxy, {
    prefix: '/reports',
    upstream: ORDERS_URL,
    replyOptions: {
      rewriteRequestHeaders: (request, headers) => ({ ...headers, 'x-report-of': String(request.headers['x-team']) }),
      rewriteHeaders: ({ 'x-powered-by': _hidden, ...headers }) => headers
    }
  })

  fastify.get('/ping', async () => ({ pong: true }))
  return fastify
}

function requireKey(request: FastifyRequest, reply: FastifyReply, done: () => void): void {
  if (request.headers['x-api-key'] === API_KEY) done()
  else reply.code(401).send({ error: 'an API key is needed' })
}

if (import.meta.main) await (await build()).listen({ host: '127.0.0.1', port: Number(process.env.PORT ?? 8080) })
