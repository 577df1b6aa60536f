/** Authenticates by API keys: `options: { keys: { KEY: NAME } }`, and `provides: [consumer]`. Services do not see the keys. */
import type { FastifyInstance } from 'fastify'
import { dropHeaders } from 'jingwei/plugin'

export default async function apiKeys(fastify: FastifyInstance, { keys }: { keys: Record<string, string> }) {
  const consumers = new Map(Object.entries(keys)) // a Map, since `__proto__` would be found in an object
  fastify.addHook('onRoute', (route) => dropHeaders(route, ['x-api-key']))
  fastify.addHook('onRequest', async (request) => {
    const id = consumers.get(String(request.headers['x-api-key']))
    if (id === undefined) throw Object.assign(new Error('A known x-api-key is required'), { statusCode: 401 })
    request.consumer = { id }
  })
}
