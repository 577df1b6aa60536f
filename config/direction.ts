import type { Listen } from './schema.ts'

/** Direction of traffic: of external clients (north-south), or between services (east-west). */
export type Direction = NonNullable<Listen['direction']>

/** Returns the direction of a listener's traffic. */
export function directionOf({ direction, connect }: Pick<Listen, 'direction' | 'connect'>): Direction {
  return direction ?? (connect === undefined ? 'north-south' : 'east-west')
}
