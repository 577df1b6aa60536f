import type { MeshPolicy } from '../../../config/schema.ts'
import type { Repeats } from './repeating/repeats.ts'
import type { Service } from './service.ts'
import type { Dispatch, FaultOwners, Interceptor, MeshDeps } from './types.ts'

/** Dependencies of a layer besides its service and policy. */
export interface LayerContext extends MeshDeps {
  /** The chain of another service, for what is sent there instead or besides; `opts` need not name it. */
  readonly toService: (name: string) => Dispatch
  /** Returns a key of the plugins in force, which may change requests and responses; empty without any. */
  readonly pluginsKey: () => string
  /** Contains what plugins throw from timers and sockets; without it, that ends the process. */
  readonly owners?: FaultOwners | null
  /** Returns how the concerns of the mesh send requests again. */
  readonly repeats: () => readonly Repeats[]
}

/**
 * Builds a concern's interceptor for one service and policy when a chain is composed; null where it is off.
 * Called once for each chain: when the mesh starts, or by a call with another policy. What all chains of a service share,
 * those of the next configuration included, is got by `service.state()`.
 */
export type Layer = (service: Service, policy: MeshPolicy, context: LayerContext) => Interceptor | null
