/**
 * hand-made-gateway.ts as a plugin of Jingwei. The registrations are the same, except that `upstream` names a service of
 * migrated-gateway.yaml instead of an address.
 */
import httpProxy from '@fastify/http-proxy'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'

const { API_KEY = 'demo' } = process.env

export default async function gateway(fastify: FastifyInstance): Promise<void> {
  await fastify.register(httpProxy, { prefix: '/orders', upstream: 'http://orders.mesh', rewritePrefix: '/orders' })

  await fastify.register(httpProxy, {
    prefix: '/users/:id',
    rewritePrefix: '/v2/users/:id',
    upstream: 'http://users.mesh',
    preHandler: requireKey
  })

  await fastify.register(httpProxy, {
    prefix: '/reports',
    upstream: 'http://orders.mesh',
    replyOptions: {
      rewriteRequestHeaders: (request, headers) => ({ ...headers, 'x-report-of': String(request.headers['x-team']) }),
      rewriteHeaders: ({ 'x-powered-by': _hidden, ...headers }) => headers
    }
  })

  fastify.get('/ping', async () => ({ pong: true }))
}

function requireKey(request: FastifyRequest, reply: FastifyReply, done: () => void): void {
  if (request.headers['x-api-key'] === API_KEY) done()
  else reply.code(401).send({ error: 'an API key is needed' })
}
