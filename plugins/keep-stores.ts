import fp from 'fastify-plugin'
import type { Claims } from './stores.ts'
import { Stores } from './stores.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Stores for state that outlives a configuration. */
    stores: Claims
  }
}

/**
 * Decorates a server with `stores`, unless it has them already. Objects are disposed of when the server closes, or later if
 * several servers share the stores.
 */
export default fp<{ stores?: Stores | undefined }>(
  async (fastify, { stores = new Stores() }) => {
    if (fastify.hasDecorator('stores')) return
    const claims = stores.open(fastify.log)
    fastify.decorate('stores', claims)
    // Registered first, so this `onClose` hook runs last, after all hooks that still use claimed objects.
    fastify.addHook('onClose', () => claims.release())
  },
  { name: 'jingwei-stores', fastify: '5.x' }
)
