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

/** Places concerns in the order of the list, each after the one that its `order` names. Two that name each other are a fault. */
function placeInOrder(
  waiting: Map<number, ConcernModule>,
  owners: readonly PluginOwner[],
  place: (index: number, module: ConcernModule) => void
): void {
  while (waiting.size > 0) {
    const names = new Set([...waiting.values()].map(({ name }) => name))
    const before = waiting.size
    for (const [index, module] of waiting) {
      const { order } = owners[index]!
      if (names.has(order?.before ?? order?.after ?? '')) continue
      place(index, module)
      waiting.delete(index)
    }
    if (waiting.size < before) continue
    const [[index, { name }]] = [...waiting] as [[number, ConcernModule]]
    const { order } = owners[index]!
    const isItself = (order?.before ?? order?.after) === name
    throw owners[index]!.fault(
      isItself
        ? `order: "${name}" is the concern itself`
        : `order: the places of "${[...names].join('" and "')}" depend on each other`
    )
  }
}

/**
 * Gives the concerns of users their places before any of them starts: one may stand beside one that is listed after it.
 * Returns the edge's; those of the mesh are in its chains by then.
 */
export function placeConcerns(
  fastify: FastifyInstance,
  modules: readonly (AnyPlugin | ConcernModule)[],
  owners: readonly PluginOwner[],
  entries: readonly PluginOptions[]
): Map<number, PlacedConcern> {
  const placed = new Map<number, PlacedConcern>()
  const edge = new Map<number, ConcernModule>()
  const mesh = new Map<number, ConcernModule>()
  for (const [index, module] of modules.entries()) {
    if (isConcern(module)) (module.plugin ? edge : mesh).set(index, module)
  }
  placeInOrder(edge, owners, (index, module) => {
    const concern = fastify.edgeConcern({ ...module, options: orOff(module.options) } as unknown as Definition)
    const slot = fastify.edgeOrder.slot(owners[index]!.order, concern)
    if (slot === null) throw unknownConcern(fastify, owners[index]!)
    placed.set(index, { concern, slot })
  })
  placeInOrder(mesh, owners, (index, module) => {
    const owner = owners[index]!
    const { name, layer, repeats } = module as Pick<MeshConcern, 'name' | 'layer' | 'repeats'>
    const concern = { name, layer, ...(repeats && { repeats }) }
    try {
      owner.owners.run(owner, () => fastify.mesh.add(concern, owner.order ?? {}))
    } catch (error) {
      throw startFailure(error, entries[index]!, owner)
    }
  })
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

/** Starts a concern: the hooks of one of the edge are guarded and go to its place. */
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
  if (placed === undefined) return
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
