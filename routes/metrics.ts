import type { FastifyInstance, FastifyPluginAsync } from 'fastify'

/** Admin port: everything counted, in Prometheus's text format. */
const metrics: FastifyPluginAsync<{ gateway: FastifyInstance }> = async (admin, { gateway }) => {
  admin.get('/metrics', async (_request, reply) => {
    reply.type(gateway.metrics.contentType)
    return gateway.metrics.metrics()
  })
}

export default metrics
