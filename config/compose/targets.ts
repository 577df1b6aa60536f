/** The targets of a route whose response is made of calls. */
import type { ComposeConfig } from '../schema/compose.ts'
import type { MeshPolicy, RoutePolicy, RouteTarget } from '../schema.ts'
import { ordered } from './order.ts'

/** Returns the calls in the order of their references. Their policies include that of the route, `ofRoute`. */
export function composedTargets(
  compose: ComposeConfig,
  ofRoute: RoutePolicy,
  completed: (settings: Partial<MeshPolicy>) => Partial<MeshPolicy>
): RouteTarget[] {
  const result = ordered(compose)
  const order = 'order' in result ? result.order : []
  return order.map(({ name, after }) => {
    const { service, method, path, required, mesh = {} } = compose.calls[name]!
    return { service, mesh: { ...ofRoute, ...completed(mesh) }, call: { name, method, path, after, required } }
  })
}
