import fp from 'fastify-plugin'
import { FaultOwners } from './fault-owners.ts'
import { guardRoute } from './guarded-hook.ts'

declare module 'fastify' {
  interface FastifyInstance {
    faultOwners: FaultOwners
  }
}

/** Contains the faults of plugins that are yet to be loaded; `user-plugins` guards their hooks. */
export default fp(
  async (fastify) => {
    const owners = new FaultOwners()
    fastify.decorate('faultOwners', owners)
    // First of the `onRoute` hooks: of a plugin's own route, it sees the plugin's hooks alone.
    fastify.addHook('onRoute', (route) => {
      if (owners.loading !== null) guardRoute(route, owners.loading)
    })
  },
  { name: 'jingwei-plugin-guard', fastify: '5.x' }
)
