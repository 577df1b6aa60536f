import { dropHeaders } from 'jingwei/plugin'

export default async function esm(fastify) {
  fastify.addHook('onRoute', (route) => dropHeaders(route, ['x-secret']))
  fastify.addHook('onSend', async (_request, reply) => void reply.header('x-module', 'yes'))
}
