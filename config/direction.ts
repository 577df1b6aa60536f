import type { Listen } from './schema.ts'

/** Direction of traffic: of external clients (north-south), or between services (east-west). */
export type Direction = NonNullable<Listen['direction']>

/** Returns the direction of a listener's traffic. */
export function directionOf({ direction, connect }: Pick<Listen, 'direction' | 'connect'>): Direction {
  return direction ?? (connect === undefined ? 'north-south' : 'east-west')
}

/** Returns the directions of the traffic on these listeners, or on those of them that are named. */
export function directionsOf(
  listeners: readonly Pick<Listen, 'name' | 'direction' | 'connect'>[],
  names?: readonly string[]
): Direction[] {
  const serving = listeners.filter(({ name }) => names === undefined || names.includes(name))
  return [...new Set(serving.map(directionOf))]
}
