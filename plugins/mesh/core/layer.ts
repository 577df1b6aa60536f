import type { MeshPolicy } from '../../../config/schema.ts'
import type { Repeats } from './repeating/repeats.ts'
import type { Service } from './service.ts'
import type { ServiceState } from './service-state.ts'
import type { Dispatch, FaultOwners, Interceptor, MeshDeps } from './types.ts'

/** Dependencies of a layer besides its service and policy. */
export interface LayerContext extends MeshDeps {
  /** Returns the chain of another service, for fallbacks and mirrors; it sets the origin in `opts`. */
  readonly toService: (name: string) => Dispatch
  /** Returns a key of the plugins that add interceptors, which may change responses; empty without any. */
  readonly pluginsKey: () => string
  /** Contains errors that plugins throw from timers and sockets; without it, these end the process. */
  readonly owners?: FaultOwners | null
  /**
   * Returns a state for the calls of one chain's route to a service. As `service.state`, but for this route and these
   * options alone: the next configuration gets it if they are unchanged, else it is closed.
   */
  readonly routeState: <S extends ServiceState>(
    service: Service,
    name: string,
    options: object,
    create: (deps: MeshDeps, route: string) => S
  ) => S
  /** Returns the declarations of the concerns that send requests again. */
  readonly repeats: () => readonly Repeats[]
}

/**
 * Builds a concern's interceptor for one service and policy; null if the concern is disabled. Called once for each
 * chain: when the mesh starts, or by the first call with another policy. State that all chains of a service share, with
 * those of the next configuration, comes from `service.state()`.
 */
export type Layer = (service: Service, policy: MeshPolicy, context: LayerContext) => Interceptor | null
