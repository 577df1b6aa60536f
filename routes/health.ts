import type { FastifyInstance, FastifyPluginAsync } from 'fastify'

/** Admin port: whether the process lives, and whether a load balancer should send it requests. */
const health: FastifyPluginAsync<{ gateway: FastifyInstance }> = async (admin, { gateway }) => {
  admin.get('/health/live', async () => ({ status: 'live' }))

  /**
   * Ready once every service's source has answered. A service without instances, or one whose source has gone
   * since, is reported and does not count: taking the whole node out would not help it.
   */
  admin.get('/health/ready', async (_request, reply) => {
    const services = Object.fromEntries(
      gateway.mesh.status().map(({ name, source, instances }) => {
        const ageMs = source.confirmedAt === null ? null : Math.round(gateway.mesh.now() - source.confirmedAt)
        const { kind, error, restored, failover } = source
        const more = { ...(restored && { restored }), ...(failover && { failover }) }
        return [name, { source: kind, instances: instances.length, discoveryAgeMs: ageMs, error, ...more }]
      })
    )
    const waitingFor = Object.keys(services).filter((name) => services[name]!.discoveryAgeMs === null)
    const status = gateway.isDraining() ? 'draining' : waitingFor.length > 0 ? 'discovering' : 'ready'
    reply.code(status === 'ready' ? 200 : 503)
    return { status, ...(waitingFor.length > 0 && { waitingFor }), services }
  })
}

export default health
