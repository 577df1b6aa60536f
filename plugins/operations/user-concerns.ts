/** Concerns that users' modules define: an edge concern is placed among the edge's, a mesh concern in the mesh's chains. */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { orOff } from '../../config/schema/kit.ts'
import type { Config, PluginOptions } from '../../config/schema.ts'
import type { PluginOwner } from './fault-owners.ts'
import { guardInstance } from './guarded-instance.ts'
import type { AnyPlugin, ConcernModule } from './plugin-modules.ts'
import { isConcern } from './plugin-modules.ts'
import { PluginPlacement } from './plugin-placement.ts'
import { startFailure } from './start-failure.ts'

type Definition = Parameters<FastifyInstance['edgeConcern']>[0]
type EdgeConcern = ReturnType<FastifyInstance['edgeConcern']>
type MeshConcern = Parameters<FastifyInstance['mesh']['add']>[0]

/** A plugin's `order` that names no concern. */
export function unknownConcern(fastify: FastifyInstance, owner: PluginOwner): Error {
  const wanted = owner.order?.before ?? owner.order?.after
  const { names } = fastify.edgeOrder
  return owner.fault(`order: ${wanted} has no position among the edge's concerns; there are ${names.join(', ')}`)
}

interface PlacedConcern {
  readonly concern: EdgeConcern
  readonly slot: { attach: (route: RouteOptions) => void }
}

/**
 * Gives the edge concerns of users their places before any of them starts: one may stand beside one that is listed after
 * it. Two that stand beside each other are a fault.
 */
export function placeConcerns(
  fastify: FastifyInstance,
  modules: readonly (AnyPlugin | ConcernModule)[],
  owners: readonly PluginOwner[]
): Map<number, PlacedConcern> {
  const placed = new Map<number, PlacedConcern>()
  const waiting = new Map<number, EdgeConcern>()
  for (const [index, module] of modules.entries()) {
    if (!isConcern(module) || !module.plugin) continue
    const definition = { ...module, options: orOff(module.options) } as unknown as Definition
    waiting.set(index, fastify.edgeConcern(definition))
  }
  for (let before = -1; before !== waiting.size; ) {
    before = waiting.size
    for (const [index, concern] of waiting) {
      const slot = fastify.edgeOrder.slot(owners[index]!.order, concern)
      if (slot === null) continue
      placed.set(index, { concern, slot })
      waiting.delete(index)
    }
  }
  const names = new Set([...waiting.keys()].map((index) => (modules[index] as ConcernModule).name))
  for (const index of waiting.keys()) {
    const owner = owners[index]!
    const wanted = owner.order?.before ?? owner.order?.after ?? ''
    if (!names.has(wanted)) throw unknownConcern(fastify, owner)
    if (wanted === (modules[index] as ConcernModule).name) throw owner.fault(`order: "${wanted}" is the concern itself`)
    throw owner.fault(`order: the places of "${[...names].join('" and "')}" depend on each other`)
  }
  return placed
}

/** Refuses keys of an entry that mean nothing to a concern, whose own key says where it is on and with which options. */
function refuseUseless({ name, layer }: ConcernModule, entry: PluginOptions, owner: PluginOwner): void {
  const { options, prefix, guarded, scope } = entry
  const given = { options, prefix, guarded: guarded || undefined, scope: scope === 'routes' ? scope : undefined }
  const [useless] = Object.entries(given).find(([, value]) => value !== undefined) ?? []
  if (useless === undefined) return
  const key = `${layer === undefined ? 'edge' : 'mesh'}.${name}`
  throw owner.fault(`"${useless}" has no effect on a concern: its options, and where it is on, are set by ${key}`)
}

/** Starts a concern: its hooks are guarded and go to its place. */
export async function startConcern(
  fastify: FastifyInstance,
  module: ConcernModule,
  placed: PlacedConcern | undefined,
  config: Config,
  entry: PluginOptions,
  owner: PluginOwner
): Promise<void> {
  const failed = (error: unknown) => startFailure(error, entry, owner)
  refuseUseless(module, entry, owner)
  fastify.pluginRecord.addOwner(owner)
  if (placed === undefined) {
    try {
      await owner.owners.load(owner, async () => {
        const { name, layer, repeats } = module as Pick<MeshConcern, 'name' | 'layer' | 'repeats'>
        fastify.mesh.add({ name, layer, ...(repeats && { repeats }) }, owner.order ?? {})
      })
    } catch (error) {
      throw failed(error)
    }
    return
  }
  const placement = new PluginPlacement(fastify, owner)
  placed.slot.attach = (route) => {
    try {
      placement.attachTo(route)
    } catch (error) {
      throw failed(error)
    }
  }
  const release = guardInstance(fastify, owner, placement, failed)
  try {
    await owner.owners.load(owner, async () => fastify.register(placed.concern.plugin, config))
  } catch (error) {
    throw failed(error)
  } finally {
    release()
  }
  placement.complete()
}
