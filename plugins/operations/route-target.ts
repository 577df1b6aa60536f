/** The services or the response of a route, for `routes` and `explain`. */
import { directText } from '../../config/direct-routes.ts'
import type { RouteConfig } from '../../config/schema.ts'
import { callsOf } from '../../config/targets.ts'

/**
 * Returns the services of a route as text: `orders`, `orders=95 next=5` for a split, `user:users items:orders` for calls;
 * where the gateway responds itself, `redirect 301 to /new`.
 */
export function targetText(route: RouteConfig): string {
  const direct = directText(route)
  if (direct !== null) return direct
  const calls = callsOf(route)
  if (calls !== null) return calls.map(({ call, service }) => `${call}:${service}`).join(' ')
  const shares = route.mesh.split?.map(({ service, weight }) => `${service}=${weight}`)
  const text = shares?.join(' ') ?? route.service
  return route.via === undefined ? text : `${text} via ${route.via}`
}
