import type { FastifyInstance, FastifyPluginAsync } from 'fastify'

/** Page of the admin port with all metrics in Prometheus' text format. */
const metrics: FastifyPluginAsync<{ gateway: FastifyInstance }> = async (admin, { gateway }) => {
  admin.get('/metrics', async (_request, reply) => {
    const { registry } = gateway.meter
    reply.type(registry.contentType)
    return registry.metrics()
  })
}

export default metrics
