/** The services of a route, for `routes` and `explain`. */
import type { RouteConfig } from '../../config/schema.ts'
import { callsOf } from '../../config/targets.ts'

/** Returns the services of a route as text: `orders`, `orders=95 next=5` for a split, `user:users items:orders` for calls. */
export function targetText(route: RouteConfig): string {
  const calls = callsOf(route)
  if (calls !== null) return calls.map(({ call, service }) => `${call}:${service}`).join(' ')
  const shares = route.mesh.split?.map(({ service, weight }) => `${service}=${weight}`)
  const text = shares?.join(' ') ?? route.service
  return route.via === undefined ? text : `${text} via ${route.via}`
}
