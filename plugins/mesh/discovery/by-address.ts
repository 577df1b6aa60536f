/** The identity of an instance is its address, whatever names a registry gives it. */
import type { InstanceSpec } from '../types.ts'

/**
 * Merges entries with the same origin into one instance: registered on two nodes, under two ids, in two datacenters or
 * as two SRV targets, it is still one process, which would otherwise get twice its share and be probed, ejected and
 * counted twice. The first entry gives id and meta, the largest weight counts, and tags are those of all.
 */
export function byAddress(specs: readonly InstanceSpec[]): readonly InstanceSpec[] {
  const merged = new Map<string, InstanceSpec>()
  for (const spec of specs) {
    const first = merged.get(spec.origin)
    merged.set(spec.origin, first === undefined ? spec : merge(first, spec))
  }
  return merged.size === specs.length ? specs : Object.freeze([...merged.values()])
}

function merge(first: InstanceSpec, other: InstanceSpec): InstanceSpec {
  return {
    ...first,
    weight: Math.max(first.weight, other.weight),
    tags: [...new Set([...first.tags, ...other.tags])]
  }
}
