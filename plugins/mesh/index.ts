import { createHash } from 'node:crypto'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import type { Meter } from '../meter.ts'
import type { InboundListeners } from '../seam-inbound.ts'
import type { WatchKey } from '../seam-keys.ts'
import type { Claims } from '../stores.ts'
import { Stores } from '../stores.ts'
import type { FaultOwners } from './core/types.ts'
import type { UserDiscoverySource } from './discovery/user-source.ts'
import { userSource } from './discovery/user-source.ts'
import { Inbounds } from './inbounds.ts'
import type { FastifyMesh, MeshOptions } from './mesh.ts'
import { Mesh } from './mesh.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** The seam: an undici `Dispatcher` whose origins are services, `http://orders.mesh`. */
    mesh: FastifyMesh
    /** Dependencies of the mesh; absent for those of the configuration and the system. */
    meshDeps?: MeshDependencies
    /** The listeners that services reach through the mesh. */
    inbound: InboundListeners
    /** Watches a key of Consul's KV store. */
    watchKey: WatchKey
  }
}

/** Instances, connections to them and time, in place of those of the configuration and the system. */
export type MeshDependencies = Pick<MeshOptions, 'discovery' | 'transport' | 'now' | 'timers' | 'random'>

/** Returns a digest of the plugins' options; not the options themselves, which may hold secrets. */
const keyOf = (plugins: Config['plugins']) =>
  createHash('sha256')
    .update(JSON.stringify(plugins.map(({ position: _, ...plugin }) => plugin)))
    .digest('base64')

/** Registers the mesh as `fastify.mesh`: built now, started in `onReady`, closed after the edge. */
export default fp<Config>(
  async (fastify, config) => {
    const meter: Meter | null = fastify.hasDecorator('meter') ? fastify.meter.lasting : null
    const stores: Claims | null = fastify.hasDecorator('stores') ? fastify.stores : null
    const owners: FaultOwners | null = fastify.hasDecorator('faultOwners') ? fastify.faultOwners : null
    const { meshDeps: deps = {} } = fastify
    const users = fastify.hasDecorator('discoverySources') ? fastify.discoverySources : []
    const mesh = await Mesh.create(config, {
      ...deps,
      ...(users.length > 0 && {
        sources: users.map(({ definition, enter, leave, fault }) =>
          userSource(definition as UserDiscoverySource, { enter, leave, fault })
        ),
        sourcesKey: users.map(({ module }) => module)
      }),
      log: fastify.log,
      perRequestHeaders: config.perRequestHeaders,
      owners,
      spanRecorder: fastify.hasDecorator('spanRecorder') ? fastify.spanRecorder : null,
      ...(stores && { claims: stores, pluginsKey: keyOf(config.plugins) }),
      ...(meter && { meter })
    })
    fastify.decorate('mesh', mesh)
    const own = stores === null ? new Stores().open(fastify.log) : null
    const claims = own ?? stores!
    fastify.decorate('inbound', new Inbounds(config.listeners, config, claims, mesh.upstreams))
    const { consul, snapshot } = config.discovery
    fastify.decorate('watchKey', async (name) => {
      const { ConsulKey } = await import('./discovery/consul-key.ts')
      if (consul === undefined || name.source !== 'consul') throw new Error(`discovery.${name.source} has no keys`)
      const options = { ...name, consul, snapshot }
      return claims.claim(
        'jingwei.consul-key',
        options,
        () => new ConsulKey(options, fastify.log),
        (key) => key.close()
      )
    })
    fastify.addHook('onReady', () => mesh.startInSlices())
    fastify.addHook('onClose', async () => {
      await mesh.shutdown()
      await own?.release()
    })
  },
  { name: 'jingwei-mesh', fastify: '5.x' }
)
