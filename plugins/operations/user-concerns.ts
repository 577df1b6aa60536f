/** Concerns of users' modules: an edge concern is placed among those of the edge, a mesh concern in the chains of the mesh. */
import type { FastifyInstance, RouteOptions } from 'fastify'
import { orOff } from '../../config/schema/kit.ts'
import type { Config, PluginOptions } from '../../config/schema.ts'
import type { PluginOwner } from './fault-owners.ts'
import { guardInstance } from './guarded-instance.ts'
import type { ConcernModule, Exported } from './plugin-modules.ts'
import { isConcern, isSource } from './plugin-modules.ts'
import { PluginPlacement } from './plugin-placement.ts'
import { startFailure } from './start-failure.ts'

/** A user's concern has `mode` if its own schema has it: it may respond without an error, which the contract cannot undo. */
const noShadow = 'its options say whether it has one'
type Definition = Parameters<FastifyInstance['edgeConcern']>[0]
type EdgeConcern = ReturnType<FastifyInstance['edgeConcern']>
type MeshConcern = Parameters<FastifyInstance['mesh']['add']>[0]

/** Creates the fault of a plugin whose `order` names no concern. */
function unknownConcern(fastify: FastifyInstance, owner: PluginOwner): Error {
  const wanted = owner.order?.before ?? owner.order?.after
  const { names } = fastify.edgeOrder
  return owner.fault(`order: unknown position "${wanted}" among the edge concerns; possible are ${names.join(', ')}`)
}

/** Position of a concern, or of a plugin's hooks, among the edge concerns. */
export interface Placed {
  readonly concern: EdgeConcern | null
  readonly slot: { attach: (route: RouteOptions) => void }
}

/**
 * Places concerns and hooks of plugins in the order of the list, but each only after the concern that its `order` names is
 * placed. Concerns that depend on each other are a fault.
 *
 * @param waiting index in the list → name of the concern; null for a plugin
 */
function placeInOrder(
  waiting: Map<number, string | null>,
  owners: readonly PluginOwner[],
  place: (index: number) => void
): void {
  while (waiting.size > 0) {
    const names = new Set([...waiting.values()].filter((name) => name !== null))
    const before = waiting.size
    for (const index of waiting.keys()) {
      const { order } = owners[index]!
      if (names.has(order?.before ?? order?.after ?? '')) continue
      place(index)
      waiting.delete(index)
    }
    if (waiting.size < before) continue
    const [index, name] = [...waiting].find(([, name]) => name !== null)!
    const { order } = owners[index]!
    const isItself = (order?.before ?? order?.after) === name
    throw owners[index]!.fault(
      isItself
        ? `order: "${name}" is the concern itself`
        : `order: the positions of "${[...names].join('" and "')}" depend on each other`
    )
  }
}

/**
 * Places users' concerns, and the hooks of plugins with an `order`, before any plugin starts. So `order` may name a concern
 * that is listed later, and the hooks also run on routes of plugins that are listed earlier. Returns the positions in the
 * edge; mesh concerns are added to the chains directly.
 */
export function placeAll(
  fastify: FastifyInstance,
  modules: readonly Exported[],
  owners: readonly PluginOwner[],
  entries: readonly PluginOptions[]
): Map<number, Placed> {
  const placed = new Map<number, Placed>()
  const edge = new Map<number, string | null>()
  const mesh = new Map<number, string>()
  for (const [index, module] of modules.entries()) {
    const { order, prefix } = entries[index]!
    if (isSource(module)) continue
    if (isConcern(module)) (module.plugin ? edge : mesh).set(index, module.name)
    else if (order !== undefined && prefix === undefined) edge.set(index, null)
  }
  placeInOrder(edge, owners, (index) => {
    const module = modules[index]!
    const concern = isConcern(module)
      ? fastify.edgeConcern({ ...module, options: orOff(module.options), noShadow } as unknown as Definition)
      : null
    const slot = fastify.edgeOrder.slot(owners[index]!.order, concern)
    if (slot === null) throw unknownConcern(fastify, owners[index]!)
    placed.set(index, { concern, slot })
  })
  placeInOrder(mesh, owners, (index) => {
    const owner = owners[index]!
    const { name, layer, repeats } = modules[index] as Pick<MeshConcern, 'name' | 'layer' | 'repeats'>
    const concern = { name, layer, ...(repeats && { repeats }) }
    try {
      owner.owners.run(owner, () => fastify.mesh.add(concern, owner.order ?? {}))
    } catch (error) {
      throw startFailure(error, entries[index]!, owner)
    }
  })
  return placed
}

/** Rejects keys of an entry that have no effect on a concern: its key under `edge` or `mesh` sets its options and routes. */
function rejectIneffectiveKeys({ name, layer }: ConcernModule, entry: PluginOptions, owner: PluginOwner): void {
  const { options, prefix, guarded, scope } = entry
  const given = { options, prefix, guarded: guarded || undefined, scope: scope === 'routes' ? scope : undefined }
  const [useless] = Object.entries(given).find(([, value]) => value !== undefined) ?? []
  if (useless === undefined) return
  const key = `${layer === undefined ? 'edge' : 'mesh'}.${name}`
  throw owner.fault(`"${useless}" has no effect on a concern: its options, and where it is on, are set by ${key}`)
}

/** Starts a concern. The hooks of an edge concern are guarded and go to its position. */
export async function startConcern(
  fastify: FastifyInstance,
  module: ConcernModule,
  placed: Placed | undefined,
  config: Config,
  entry: PluginOptions,
  owner: PluginOwner
): Promise<void> {
  const failed = (error: unknown) => startFailure(error, entry, owner)
  rejectIneffectiveKeys(module, entry, owner)
  fastify.pluginRecord.addOwner(owner)
  if (!placed?.concern) return
  const placement = new PluginPlacement(fastify, owner)
  const { concern, slot } = placed
  slot.attach = (route) => {
    try {
      placement.attachTo(route)
    } catch (error) {
      throw failed(error)
    }
  }
  const release = guardInstance(fastify, owner, placement, failed)
  try {
    await owner.owners.load(owner, async () => fastify.register(concern.plugin, config))
  } catch (error) {
    throw failed(error)
  } finally {
    release()
  }
  placement.complete()
}
