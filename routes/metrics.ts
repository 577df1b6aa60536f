import type { FastifyInstance, FastifyPluginAsync } from 'fastify'

/** Admin port: everything counted, in Prometheus's text format. */
const metrics: FastifyPluginAsync<{ gateway: FastifyInstance }> = async (admin, { gateway }) => {
  admin.get('/metrics', async (_request, reply) => {
    const { registry } = gateway.meter
    reply.type(registry.contentType)
    return registry.metrics()
  })
}

export default metrics
