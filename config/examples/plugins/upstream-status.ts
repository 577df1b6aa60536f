/** Adds headers with the service and its status to responses, except to errors of the gateway itself. */
import type { FastifyInstance } from 'fastify'

export default async function upstreamStatus(fastify: FastifyInstance, { header = 'x-upstream-status' }) {
  fastify.addHook('onSend', async ({ exchange, failure }, reply) => {
    if (exchange?.call && failure === null) reply.header(header, `${exchange.call.service} ${reply.statusCode}`)
  })
}
