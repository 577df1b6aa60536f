/** Chains of one configuration: one for each service and route policy. A policy may split calls among services. */
import type { RoutePolicy } from '../../config/schema.ts'
import type { LayerContext } from './core/layer.ts'
import { originOf } from './core/origin.ts'
import type { RouteStates } from './core/route-states.ts'
import type { Service } from './core/service.ts'
import type { DispatchHandler } from './core/types.ts'
import type { Chain, Interceptors } from './interceptors.ts'
import { split } from './split.ts'

interface ChainDeps {
  readonly services: ReadonlyMap<string, Service>
  readonly used: Interceptors
  readonly context: Omit<LayerContext, 'routeState'>
  readonly routeStates: RouteStates
  /** Names of the configured routes, by their policies. */
  readonly routeOf: ReadonlyMap<RoutePolicy, string>
  /** Fails a call to a service that is not configured. */
  readonly refuse: (name: string, handler: DispatchHandler) => boolean
}

/** Chains of one service: without a policy, and by policy. */
interface ServiceChains {
  own: Chain | null
  byPolicy: WeakMap<RoutePolicy, Chain>
}

export class Chains {
  readonly byOrigin = new Map<string, ServiceChains>()
  readonly #deps: ChainDeps

  constructor(deps: ChainDeps) {
    this.#deps = deps
  }

  addService(name: string): void {
    this.byOrigin.set(originOf(name), { own: null, byPolicy: new WeakMap() })
  }

  /** Discards all chains after a change of their layers; they are composed again when needed. */
  reset(): void {
    for (const chains of this.byOrigin.values()) Object.assign(chains, { own: null, byPolicy: new WeakMap() })
  }

  /** Returns the chain of a service under a policy: composed once, for calls and for `describe` alike. */
  of(name: string, policy?: RoutePolicy): Chain {
    const chains = this.byOrigin.get(originOf(name))!
    const known = policy === undefined ? chains.own : chains.byPolicy.get(policy)
    if (known) return known
    const route = (policy && this.#deps.routeOf.get(policy)) ?? ''
    const chain = this.#compose(name, policy, this.#deps.routeStates(route))
    if (policy === undefined) chains.own = chain
    else chains.byPolicy.set(policy, chain)
    return chain
  }

  #compose(name: string, policy: RoutePolicy = {}, routeState: LayerContext['routeState']): Chain {
    const { split: shares, stickOn, ...override } = policy
    const { services, used, context, refuse } = this.#deps
    if (shares !== undefined) {
      const chains = shares.map(({ service, subset }) =>
        this.#compose(service, { ...override, ...(subset !== undefined && { subset }) }, routeState)
      )
      const targets = shares.map((share, index) => ({ share, dispatch: chains[index]!.dispatch }))
      return { dispatch: split(targets, stickOn, context), layers: [], shares: chains }
    }
    const service = services.get(name)
    if (service === undefined) return { dispatch: (_opts, handler) => refuse(name, handler), layers: [] }
    return used.compose(service, { ...service.config.mesh, ...override }, { ...context, routeState })
  }
}
