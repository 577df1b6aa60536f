import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import type { Config } from '../config/schema.ts'

/** Admin port, read only: the routes and services in force. Neither options nor secrets are shown. */
const admin: FastifyPluginAsync<{ gateway: FastifyInstance; config: Config }> = async (server, { gateway, config }) => {
  server.get('/admin/routes', async () =>
    config.routes.map(({ name, match, service, mesh }) => ({
      name,
      match,
      service,
      ...(mesh.split && { split: mesh.split }),
      mesh: gateway.mesh.describe(service, mesh)
    }))
  )
  server.get('/admin/services', async () => gateway.mesh.status())
}

export default admin
