import fp from 'fastify-plugin'
import type { Claims } from './stores.ts'
import { Stores } from './stores.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** State that outlives a configuration. */
    stores: Claims
  }
}

/**
 * Decorates a server with `stores`, unless it has them. Their objects are disposed of when the server closes, or later if
 * these are the stores of several servers.
 */
export default fp<{ stores?: Stores | undefined }>(
  async (fastify, { stores = new Stores() }) => {
    if (fastify.hasDecorator('stores')) return
    const claims = stores.open(fastify.log)
    fastify.decorate('stores', claims)
    // The first to be registered, so the last to run: after those who use what they have claimed.
    fastify.addHook('onClose', () => claims.release())
  },
  { name: 'jingwei-stores', fastify: '5.x' }
)
