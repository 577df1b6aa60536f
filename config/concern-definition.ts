/** Validation of a concern's definition, which the module of a plugin exports. */
import type { Key } from './concern.ts'
import { didYouMean } from './nearest.ts'

/** The keys of a definition. A key with `function` must have a function as its value. */
const definitionKeys = {
  ...({
    name: 'any', options: 'any', routeOptions: 'any', levels: 'any', default: 'any', protects: 'any', needsBridge: 'any', needsSection: 'any', provides: 'any', provided: 'function', authenticates: 'any', hasNoGroups: 'any',
    needs: 'any', callsModule: 'any', answersPreflights: 'any', ownsHeaders: 'any', setsRouteConfig: 'any', perRequestHeaders: 'function', ownPaths: 'function',
    instructions: 'any', otherServices: 'function', check: 'function', checkAll: 'function', complete: 'function',
    repeatsTimeouts: 'function', isolate: 'function', token: 'function', credentials: 'any', aliases: 'any', innerAliases: 'any',
    forConsumers: 'any'
  } satisfies Record<keyof Key, 'any' | 'function'>),
  plugin: 'function', layer: 'function', repeats: 'any', order: 'any', routeConfig: 'any',
  // Keys of edge concerns that bundled concerns use.
  more: 'any', ownRoutes: 'any', commands: 'any', tries: 'function', warnings: 'function', explain: 'function', whenOff: 'any',
  noShadow: 'any'
} as const // biome-ignore format: a table

/** Returns whether an object is meant to define a concern: it has some of the keys that each definition has. */
export function looksLikeConcern(value: unknown): value is object {
  if (typeof value !== 'object' || value === null) return false
  const { name, options, plugin, layer } = value as Record<string, unknown>
  if (typeof plugin === 'function' || typeof layer === 'function') return true
  return typeof name === 'string' && (typeof options === 'object' || plugin !== undefined || layer !== undefined)
}

/** Returns the first fault of a definition's keys; null if there is none. */
export function definitionFault(definition: object): string | null {
  const { name, options, plugin, layer, order } = definition as Record<string, unknown>
  const concern = typeof name === 'string' ? `its concern "${name}"` : 'its concern'
  // An unknown key is reported before a missing one, since it may be that one, misspelt.
  const unknown = Object.keys(definition).find((key) => !Object.hasOwn(definitionKeys, key))
  if (unknown !== undefined) {
    return `${concern} has an unknown key "${unknown}"${didYouMean(unknown, Object.keys(definitionKeys))}`
  }
  if (typeof name !== 'string') return `${concern} has no "name", the key under which its options are written`
  if (typeof options !== 'object' || options === null) return `${concern} has no "options", a JSON Schema`
  if (plugin !== undefined && layer !== undefined) {
    return `${concern} has both a "plugin", which is for the edge, and a "layer", which is for the mesh`
  }
  if (plugin === undefined && layer === undefined) {
    return `${concern} has neither a "plugin", for the edge, nor a "layer", for the mesh`
  }
  for (const [key, kind] of Object.entries(definitionKeys)) {
    const value: unknown = Reflect.get(definition, key)
    if (kind === 'function' && value !== undefined && typeof value !== 'function') {
      return `"${key}" of ${concern} is not a function`
    }
  }
  const { forConsumers } = definition as { forConsumers?: { phases?: unknown } }
  if (forConsumers !== undefined && !Array.isArray(forConsumers?.phases)) {
    return `"forConsumers" of ${concern} has no "phases", a list of the hooks such as ['preHandler']`
  }
  const fault = orderFault(order)
  return fault === null ? null : `"order" of ${concern} ${fault}`
}

function orderFault(order: unknown): string | null {
  if (order === undefined) return null
  const example = "such as { after: 'apiKey' }"
  if (typeof order !== 'object' || order === null || Array.isArray(order)) return `is not an object ${example}`
  const unknown = Object.keys(order).find((key) => key !== 'before' && key !== 'after')
  if (unknown !== undefined) return `has an unknown key "${unknown}"${didYouMean(unknown, ['before', 'after'])}`
  const places = Object.entries(order).filter(([, name]) => name !== undefined)
  if (places.length !== 1) return `must have either "before" or "after", ${example}`
  const [[key, name]] = places as [[string, unknown]]
  return typeof name === 'string' ? null : `must have the name of one concern in "${key}"`
}
