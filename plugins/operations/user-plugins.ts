import type { FastifyInstance, FastifyPluginAsync } from 'fastify'
import fp from 'fastify-plugin'
import { ConfigError } from '../../config/faults.ts'
import { pluginName } from '../../config/schema/plugin.ts'
import type { Config, PluginOptions } from '../../config/schema.ts'
import type { PluginOwner } from './fault-owners.ts'
import { guardInstance, promised } from './guarded-instance.ts'
import { claimedRoute, guardClaims } from './plugin-claims.ts'
import { faultAt, importAll } from './plugin-imports.ts'
import type { AnyPlugin, PluginModule } from './plugin-modules.ts'
import { isConcern, isSource } from './plugin-modules.ts'
import { PluginPlacement } from './plugin-placement.ts'
import { startFailure } from './start-failure.ts'
import type { Placed } from './user-concerns.ts'
import { placeAll, startConcern } from './user-concerns.ts'
import { addSource } from './user-sources.ts'

/** Loads the entries of `plugins:` in their order, with their options. Everything that they add is guarded. */
export default fp<Config>(
  async (fastify, config) => {
    const imported = await importAll(config)
    rejectUnvalidated(config, imported)
    const modules = imported.map(({ exported }) => exported)
    const release = guardClaims(fastify, fastify.faultOwners)
    // Until then, the gateway itself may claim names that a plugin has claimed.
    fastify.addHook('onReady', async () => release())
    const owners = modules.map((module, index) => {
      const order = config.plugins[index]!.order ?? (isConcern(module) ? module.order : undefined)
      return ownerOf(config, index, order ?? null, fastify)
    })
    const placed = placeAll(fastify, modules, owners, config.plugins)
    const placements = owners.map((owner, index) =>
      typeof modules[index] === 'object' ? null : placeAmongConcerns(fastify, placed.get(index), owner)
    )
    for (const [index, module] of modules.entries()) {
      const [owner, entry] = [owners[index]!, config.plugins[index]!]
      if (isConcern(module)) await startConcern(fastify, module, placed.get(index), config, entry, owner)
      else if (isSource(module)) addSource(fastify, module, entry, owner)
      else {
        await start(fastify, module, entry, owner, placements[index]!)
        warnOfUnusedHooks(fastify, config, index, owner)
      }
    }
  },
  { name: 'jingwei-user-plugins', fastify: '5.x' }
)

/**
 * Rejects a configuration that was loaded without its plugins' modules if one of them declares keys of `routes[].config`: a
 * misspelt key would leave a route without protection.
 */
function rejectUnvalidated({ plugins, routes, file }: Config, modules: readonly PluginModule[]): void {
  if (!routes.some(({ config = {} }) => Object.keys(config).length > 0)) return
  const faults = plugins.flatMap((plugin, index) => {
    if (plugin.routeConfig !== null || modules[index]!.routeConfig === undefined) return []
    const message = 'it declares keys of routes[].config, which were not validated: load the file with loadConfig'
    return [faultAt(file, index, plugin, message)]
  })
  if (faults.length > 0) throw new ConfigError(file, faults)
}

function ownerOf(
  { plugins, routes, file }: Config,
  index: number,
  order: PluginOwner['order'],
  { faultOwners: owners, host }: FastifyInstance
): PluginOwner {
  const options = plugins[index]!
  const plugin = pluginName(options)
  const named = routes.filter((route) => route.plugins?.includes(plugin)).map(({ name }) => name)
  return {
    plugin,
    owners,
    hookTimeoutMs: options.hookTimeout,
    guarded: options.guarded,
    provides: options.provides ?? [],
    routes: options.scope === 'routes' ? named : null,
    order,
    contain: (error) => host?.containStray(plugin, error) ?? false,
    intercepts: false,
    noteInterceptor() {
      this.intercepts = true
    },
    fault: (message, cause) => new ConfigError(file, [faultAt(file, index, options, message)], { cause })
  }
}

async function start(
  fastify: FastifyInstance,
  plugin: AnyPlugin,
  options: PluginOptions,
  owner: PluginOwner,
  placed: PluginPlacement | null
): Promise<void> {
  const failed = (error: unknown) => startFailure(error, options, owner)
  fastify.pluginRecord.addOwner(owner)
  const placement = placed ?? placementForRoutes(fastify, options, owner)
  const release = guardInstance(fastify, owner, placement, failed)
  try {
    await owner.owners.load(owner, async () => register(fastify, plugin, options))
  } catch (error) {
    throw failed(claimedRoute(error, owner, fastify.pluginRecord))
  } finally {
    release()
  }
  placement?.complete()
  if (!placement?.isEmpty) return
  const useless = [
    ...(options.scope === 'routes' && !owner.intercepts ? ['"scope"'] : []),
    ...(options.order === undefined ? [] : ['"order"'])
  ]
  if (useless.length === 0) return
  throw owner.fault(`${owner.plugin} adds no hooks for routes, so that ${useless.join(' and ')} would have no effect`)
}

/** Attaches the hooks of a plugin at its position among the concerns. Returns null for a plugin without one. */
function placeAmongConcerns(
  fastify: FastifyInstance,
  placed: Placed | undefined,
  owner: PluginOwner
): PluginPlacement | null {
  if (placed === undefined) return null
  const placement = new PluginPlacement(fastify, owner)
  placed.slot.attach = placement.attachTo.bind(placement)
  return placement
}

/** Returns the placement for a plugin with `scope: routes`, after the edge concerns; null for other plugins. */
function placementForRoutes(
  fastify: FastifyInstance,
  { scope, prefix }: PluginOptions,
  owner: PluginOwner
): PluginPlacement | null {
  if (prefix !== undefined || scope === 'all') return null
  const placement = new PluginPlacement(fastify, owner)
  fastify.addHook('onRoute', placement.attachTo.bind(placement))
  return placement
}

/** Warns of a plugin with a prefix that has hooks but no routes: it does not protect the routes of other plugins there. */
function warnOfUnusedHooks(
  { pluginRecord, log }: FastifyInstance,
  config: Config,
  index: number,
  owner: PluginOwner
): void {
  const entry = config.plugins[index]!
  if (entry.prefix === undefined || !pluginRecord.isIdle(owner)) return
  const message = `"${owner.plugin}" adds no routes below its "prefix", so its hooks never run`
  const warning = faultAt(config.file, index, entry, message)
  pluginRecord.warnings.push(warning)
  log.warn({ plugin: owner.plugin, file: warning.file, line: warning.line }, `plugins[${index}]: ${message}`)
}

/**
 * Registers a plugin. Its hooks and decorators are meant for the gateway's routes, so it gets no encapsulated context, unless
 * it has a prefix or its marks of fastify-plugin ask for one.
 */
async function register(
  fastify: FastifyInstance,
  plugin: AnyPlugin,
  { prefix, ...entry }: PluginOptions
): Promise<void> {
  const safe = promised(plugin)
  const options = copy(entry.options ?? {})
  const isMarked = Object.getOwnPropertySymbols(safe).length > 0
  const isShared = Reflect.get(safe, Symbol.for('skip-override')) === true
  if (prefix === undefined) {
    await fastify.register(
      isMarked || typeof options.prefix === 'string' ? safe : fp(safe, { name: plugin.name }),
      options
    )
  } else if (isShared) {
    // Fastify does not encapsulate such a plugin and ignores `prefix`, so a wrapper provides the context.
    const context: FastifyPluginAsync = async (below) => void (await below.register(safe, options))
    await fastify.register(context, { prefix })
  } else await fastify.register(safe, { ...options, prefix })
}

/** Returns a deep copy that a plugin may change; the configuration itself is frozen. */
function copy<T>(value: T): T {
  if (Array.isArray(value)) return value.map(copy) as T
  if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, copy(inner)])) as T
}
