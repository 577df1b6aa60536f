import type { Instance } from '../core/types.ts'

export type Description = Readonly<Record<string, number | string>>

/**
 * Returns the description of instances by a policy, for the admin API. It looks instances up by id, because the policy
 * may have a copy with another weight, or none if the instance is not eligible.
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

/** Rounds to six significant digits. */
export function rounded(value: number): number {
  return Number(value.toPrecision(6))
}

/** Returns the share of the traffic of each instance by weight. */
export function sharesByWeight(instances: readonly Instance[]): (instance: Instance) => number {
  const total = instances.reduce((sum, { weight }) => sum + weight, 0)
  return ({ weight }) => rounded(total > 0 ? weight / total : 1 / instances.length)
}
