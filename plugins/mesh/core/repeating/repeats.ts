import type { MeshPolicy } from '../../../../config/schema.ts'
import type { Service } from '../service.ts'
import type { DispatchOptions, MeshDeps } from '../types.ts'

/** The requests that a concern may send again. */
export interface Repeating {
  /** Most bytes of a body that are buffered; 0: none; null leaves the decision to other concerns. */
  readonly maxBody: number | null
  readonly mayRepeat: (opts: DispatchOptions) => boolean
  /**
   * Retry budget: share of the calls that repeats may add. The concern that sets it counts calls towards the budget,
   * and its `maxBody` and `mayRepeat` govern the others. Default: another concern sets it.
   */
  readonly budget?: number
}

/** Declares the requests that a concern may send again under a policy; null if none. Called as layers are. */
export type Repeats = (policy: MeshPolicy, service: Service, context: MeshDeps) => Repeating | null
