/** The contract of a mesh concern. */
import type { Key } from '../../config/concern.ts'
import type { Layer } from './core/layer.ts'
import type { Repeats } from './core/repeating/repeats.ts'

/** An entry of the ordered list of the mesh. */
export interface MeshConcern {
  /** Shown by `routes` and `explain`. */
  readonly name: string
  /** Its keys under `mesh`; none for one that has no options. */
  readonly keys?: readonly Key[]
  /** Builds its interceptor for one service and policy; null where it is off. */
  readonly layer: Layer
  /** Says which requests it may send again, so that their bodies are kept. */
  readonly repeats?: Repeats
}
