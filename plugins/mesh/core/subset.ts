import type { InstanceSpec } from './types.ts'

/** Tags and meta that instances of a subset have; none of either: all instances. */
export interface Subset {
  readonly tags?: readonly string[]
  readonly meta?: Readonly<Record<string, string>>
}

export function isInSubset(instance: InstanceSpec, { tags = [], meta = {} }: Subset): boolean {
  return (
    tags.every((tag) => instance.tags.includes(tag)) &&
    Object.entries(meta).every(([key, value]) => instance.meta[key] === value)
  )
}
