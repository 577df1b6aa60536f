import type { FastifyInstance, FastifyPluginAsync } from 'fastify'

/** Health on the admin port: liveness for a supervisor, readiness for a load balancer. */
const health: FastifyPluginAsync<{ gateway: FastifyInstance }> = async (admin, { gateway }) => {
  admin.get('/health/live', async () => ({ status: 'live' }))

  /**
   * Ready once the source of each service has responded for the first time. A service without instances, one whose source
   * fails later, or one that a reload has added, is listed but keeps the node ready: ejecting the node would not help the
   * service. A listener for services of the mesh is waited for in the same way: until it has its certificate and rules. Consumers
   * are waited for also after a reload, since a node that does not know them refuses all requests with credentials. Load
   * balancers check often, so the cost must not grow with the number of instances.
   */
  admin.get('/health/ready', async (_request, reply) => {
    const services: Record<string, object> = {}
    const waitingFor: string[] = []
    const discovered = gateway.mesh.discovery()
    for (const { name, source, ageMs: discoveryAgeMs, instances } of discovered) {
      const { kind, confirmedAt, error, restored, failover } = source
      if (confirmedAt === null) waitingFor.push(name)
      services[name] = { source: kind, instances, confirmedAt, discoveryAgeMs, error, restored, failover }
    }
    const listeners: Record<string, object> = {}
    // A gateway without the mesh half has none.
    const inbound = gateway.hasDecorator('inbound') ? gateway.inbound.status() : []
    for (const { listener, service, expiresAt, error, rulesError, otherwise } of inbound) {
      if (expiresAt === null || otherwise === 'unknown') waitingFor.push(`listener ${listener}`)
      listeners[listener] = { service, error: error ?? rulesError }
    }
    // A gateway without edge concerns has none.
    const areKnown = !gateway.hasDecorator('consumers') || gateway.consumers.isKnown
    if (!areKnown) waitingFor.push('consumers')
    const isReady = waitingFor.length === 0 || (areKnown && gateway.host?.wasReady() === true)
    const status = gateway.isDraining() ? 'draining' : isReady ? 'ready' : 'discovering'
    reply.code(status === 'ready' ? 200 : 503)
    return {
      status,
      ...(waitingFor.length > 0 && { waitingFor }),
      services,
      ...(inbound.length > 0 && { listeners })
    }
  })
}

export default health
