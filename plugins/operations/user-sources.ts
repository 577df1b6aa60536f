/** Sources of instances in users' modules, for the mesh. */
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { ConfigError } from '../../config/faults.ts'
import { pluginName } from '../../config/schema/plugin.ts'
import type { Config, PluginOptions } from '../../config/schema.ts'
import type { PluginSourceKey } from '../../config/source-definition.ts'
import type { FaultOwners, PluginOwner } from './fault-owners.ts'
import { faultAt, importAll } from './plugin-imports.ts'
import { isSource } from './plugin-modules.ts'

/** A source of a user, and the guard of its code. */
interface UserSource {
  readonly definition: PluginSourceKey
  /** Path or package of its module. */
  readonly module: string
  /** Runs its code. `contain` gets errors that the code throws later, in timers and sockets of its own. */
  readonly enter: <T>(contain: (error: Error) => void, code: () => T) => T
  /** Runs code of the mesh that the code calls. */
  readonly leave: <T>(code: () => T) => T
  /** Creates an error of the start, with the position of the entry in the file. */
  readonly fault: (message: string, cause?: unknown) => Error
}

declare module 'fastify' {
  interface FastifyInstance {
    discoverySources: readonly UserSource[]
  }
}

/** Collects the sources before the mesh is built, which needs them for its services. */
export default fp<Config>(
  async (fastify, config) => {
    const modules = config.plugins.length === 0 ? [] : await importAll(config)
    const found = modules.flatMap(({ exported }, index) =>
      isSource(exported) ? [guarded(exported, index, config, fastify.faultOwners)] : []
    )
    fastify.decorate('discoverySources', found)
  },
  { name: 'jingwei-user-sources', fastify: '5.x' }
)

function guarded(
  definition: PluginSourceKey,
  index: number,
  { file, plugins }: Config,
  owners: FaultOwners
): UserSource {
  const entry = plugins[index]!
  const plugin = pluginName(entry)
  return {
    definition,
    module: entry.path ?? entry.package ?? '',
    enter: (contain, code) => {
      const owner = {
        plugin,
        contain(error: Error) {
          contain(error)
          return true
        }
      }
      return owners.run(owner, code)
    },
    leave: (code) => owners.run(null, code),
    fault: (message, cause) => new ConfigError(file, [faultAt(file, index, entry, message)], { cause })
  }
}

/** Lists a source among the plugins. Rejects keys of its entry that have no effect on it. */
export function addSource(
  fastify: FastifyInstance,
  { name }: PluginSourceKey,
  { options, prefix, order, guarded, scope }: PluginOptions,
  owner: PluginOwner
): void {
  const given = { options, prefix, order, guarded: guarded || undefined, scope: scope === 'routes' ? scope : undefined }
  const [useless] = Object.entries(given).find(([, value]) => value !== undefined) ?? []
  if (useless !== undefined) {
    throw owner.fault(`"${useless}" has no effect on a source of instances: its options are set by discovery.${name}`)
  }
  fastify.pluginRecord.addOwner(owner)
}
