/** The services of a route, for `routes` and `explain`. */
import { callsOf } from '../../config/compose/order.ts'
import type { RouteConfig, RoutePolicy } from '../../config/schema.ts'

/** Returns the services that a route may call, each with its policy. */
export function targetsOf({ compose, service, mesh }: RouteConfig): [service: string, policy: RoutePolicy][] {
  if (compose === undefined) return [[service, mesh]]
  return Object.values(compose.calls).map((call) => [call.service, call.mesh ?? {}])
}

/** Returns the services of a route as text: `orders`, `orders=95 next=5` for a split, `user:users items:orders` for calls. */
export function targetText(route: RouteConfig): string {
  const calls = callsOf(route)
  if (calls !== null) return calls.map(({ call, service }) => `${call}:${service}`).join(' ')
  const shares = route.mesh.split?.map(({ service, weight }) => `${service}=${weight}`)
  const text = shares?.join(' ') ?? route.service
  return route.via === undefined ? text : `${text} via ${route.via}`
}
