/** States of concerns for the calls of one route to a service. */
import type { Claims } from '../../stores.ts'
import type { LayerContext } from './layer.ts'
import type { MeshDeps } from './types.ts'

/** Returns the function that gives the layers of a route's chains their states; '' for chains without a route. */
export type RouteStates = (route: string) => LayerContext['routeState']

/** Claims the states, so that the next configuration gets those whose service and options are unchanged. */
export function routeStates(claims: Claims, registries: object, deps: MeshDeps): RouteStates {
  return (route) => (service, name, options, create) => {
    const { config } = service
    return claims.claim(
      `jingwei.route-state ${name} ${route}`,
      { discovery: registries, config, options },
      () => {
        const state = create(deps, route)
        service.attach(`${name} ${route}`.trimEnd(), state)
        return state
      },
      (state) => service.detach(state)
    )
  }
}
