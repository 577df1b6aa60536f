/** Merging of registry entries by address, which identifies an instance. */
import type { InstanceSpec } from '../core/types.ts'

/**
 * Merges entries with the same origin into one instance. Registered on two nodes, under two ids, in two datacenters or
 * as two SRV targets, it is still one process, which would otherwise get twice its share and be checked, ejected and
 * counted twice. Id and meta are those of the first entry, the weight is the largest, the tags are those of all.
 */
export function byAddress(specs: readonly InstanceSpec[]): readonly InstanceSpec[] {
  const groups = Map.groupBy(specs, ({ origin }) => origin)
  if (groups.size === specs.length) return specs
  return Object.freeze([...groups.values()].map(merge))
}

function merge(entries: readonly InstanceSpec[]): InstanceSpec {
  const first = entries[0]!
  if (entries.length === 1) return first
  let { weight } = first
  for (const entry of entries) weight = Math.max(weight, entry.weight)
  return { ...first, weight, tags: [...new Set(entries.flatMap(({ tags }) => tags))] }
}
