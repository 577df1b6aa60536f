/** The contract of a mesh concern. */
import type { Key } from '../../config/concern.ts'
import type { MeshPolicy } from '../../config/schema.ts'
import type { Layer } from './core/layer.ts'
import type { Repeats } from './core/repeating/repeats.ts'
import type { Service } from './core/service.ts'

/** An entry of the ordered list of the mesh. */
export interface MeshConcern {
  /** Shown by `routes` and `explain`. */
  readonly name: string
  /** Keys of the concern under `mesh`; absent if it has no options. */
  readonly keys?: readonly Key[]
  /** Builds the interceptor for one service and policy; null if the concern is disabled. */
  readonly layer: Layer
  /** Describes, for `explain`, what the concern does with calls under this policy; null if its name says it all. */
  readonly explain?: (policy: MeshPolicy, service: Service) => string | null
  /** Declares the requests that the concern may send again, so that `replay` buffers their bodies. */
  readonly repeats?: Repeats
}
