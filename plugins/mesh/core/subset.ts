import type { InstanceSpec } from './types.ts'

/** Tags and meta that all instances of a subset have; without both, all instances belong to it. */
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
