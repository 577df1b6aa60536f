/** Tells clients what status the service responded with, and which one it was. Not on errors of the gateway itself. */
import type { FastifyInstance } from 'fastify'

export default async function upstreamStatus(fastify: FastifyInstance, { header = 'x-upstream-status' }) {
  fastify.addHook('onSend', async ({ exchange, failure }, reply) => {
    if (exchange?.call && failure === null) reply.header(header, `${exchange.call.service} ${reply.statusCode}`)
  })
}
