/** The identity of an instance is its address, whatever names a registry gives it. */
import type { InstanceSpec } from '../core/types.ts'

/**
 * Merges entries with the same origin into one instance: registered on two nodes, under two ids, in two datacenters or
 * as two SRV targets, it is still one process, which would otherwise get twice its share and be probed, ejected and
 * counted twice. The first entry gives id and meta, the largest weight counts, and tags are those of all.
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
