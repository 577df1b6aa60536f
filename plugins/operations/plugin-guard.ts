import fp from 'fastify-plugin'
import { FaultOwners, OwnerContexts } from './fault-owners.ts'
import { guardRoute } from './guarded-hook.ts'
import { PluginRecord } from './plugin-record.ts'

declare module 'fastify' {
  interface FastifyInstance {
    faultOwners: FaultOwners
    pluginRecord: PluginRecord
  }
}

/** Prepares the containment of plugins' faults before plugins load; `user-plugins` guards their hooks. */
export default fp(
  async (fastify) => {
    const contexts = fastify.stores.claim('jingwei.owner-contexts', null, () => new OwnerContexts())
    const owners = new FaultOwners(contexts)
    const record = new PluginRecord()
    fastify.decorate('faultOwners', owners)
    fastify.decorate('pluginRecord', record)
    // The first `onRoute` hook: at this time a plugin's route has only the plugin's own hooks.
    fastify.addHook('onRoute', function (route) {
      const owner = owners.loading
      if (owner === null) return
      if (owner.guarded) route.config = { ...route.config, guarded: true }
      record.addRoute(owner, route, this)
      for (const hook of guardRoute(route, owner)) record.addRouteHook(owner, hook, route)
    })
  },
  { name: 'jingwei-plugin-guard', fastify: '5.x' }
)
