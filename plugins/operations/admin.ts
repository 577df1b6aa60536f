import type { FastifyInstance } from 'fastify'
import Fastify, { LogController } from 'fastify'
import fp from 'fastify-plugin'
import { maskCredentials } from '../../config/credentials.ts'
import type { Config } from '../../config/schema.ts'
import { refuseOtherSites } from './admin-hosts.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The server of the admin port, apart from the edge; null when it is switched off. */
    admin: FastifyInstance | null
  }
}

/** Makes the admin server: metrics, health, the admin API. What it serves is in `routes/`. */
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
      // Health must be told until the very end.
      return503OnClosing: false,
      forceCloseConnections: true
    }) as unknown as FastifyInstance
    server.addHook('onRequest', refuseOtherSites(admin))
    // One place for all that is shown: URLs of registries and key sets may hold credentials, also in error messages.
    server.addHook('onSend', async (_request, _reply, payload) =>
      typeof payload === 'string' ? maskCredentials(payload) : payload
    )
    fastify.decorate('admin', server)
    // After the edge's last response, since what is added first closes last.
    fastify.addHook('onClose', () => server.close())
  },
  { name: 'jingwei-admin', fastify: '5.x' }
)
