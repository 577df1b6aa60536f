import type { Instance } from '../core/types.ts'

export type Description = Readonly<Record<string, number | string>>

/**
 * A policy's words on an instance, for people. It is asked of the instance as discovered; what the policy has may be
 * one of the same id with another weight, or none, where it takes no part.
 */
export function describer(
  instances: readonly Instance[],
  say: (instance: Instance, index: number) => Description
): (instance: Instance) => Description {
  let indexes: Map<string, number> | null = null
  return ({ id }) => {
    indexes ??= new Map(instances.map((instance, index) => [instance.id, index]))
    const index = indexes.get(id)
    if (index === undefined) return { weight: 0 }
    const instance = instances[index]!
    return { weight: rounded(instance.weight), ...say(instance, index) }
  }
}

/** To six digits, which is more than people read. */
export function rounded(value: number): number {
  return Number(value.toPrecision(6))
}

/** Returns the part of the traffic that the weights give each instance. */
export function sharesByWeight(instances: readonly Instance[]): (instance: Instance) => number {
  const total = instances.reduce((sum, { weight }) => sum + weight, 0)
  return ({ weight }) => rounded(total > 0 ? weight / total : 1 / instances.length)
}
