import type { FastifyInstance } from 'fastify'
import Fastify, { LogController } from 'fastify'
import fp from 'fastify-plugin'
import { maskCredentials } from '../../config/credentials.ts'
import type { Config } from '../../config/schema.ts'
import { refuseOtherSites } from './admin-hosts.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The server of the admin port, separate from the listeners for clients; null with `admin: false`. */
    admin: FastifyInstance | null
  }
}

/** Creates the admin server for metrics, health checks and the admin API. Its pages are in `routes/`. */
export default fp<Config>(
  async (fastify, { admin }) => {
    if (admin === false) {
      fastify.decorate('admin', null)
      return
    }
    const facade = fastify.host?.admin
    const server: FastifyInstance = Fastify({
      ...(facade && { serverFactory: facade.create }),
      loggerInstance: fastify.log,
      logController: new LogController({ disableRequestLogging: true }),
      // Health checks must get responses until the process ends.
      return503OnClosing: false,
      forceCloseConnections: true
    }) as unknown as FastifyInstance
    server.addHook('onRequest', refuseOtherSites(admin))
    // Masks credentials in all responses: URLs of registries and key sets may hold some, also in error messages.
    server.addHook('onSend', async (_request, _reply, payload) =>
      typeof payload === 'string' ? maskCredentials(payload) : payload
    )
    fastify.decorate('admin', server)
    // Hooks run in reverse order, so this closes after the edge has sent its last response.
    fastify.addHook('onClose', () => server.close())
  },
  { name: 'jingwei-admin', fastify: '5.x' }
)
