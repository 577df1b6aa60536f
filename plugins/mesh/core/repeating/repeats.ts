import type { MeshPolicy } from '../../../../config/schema.ts'
import type { Service } from '../service.ts'
import type { DispatchOptions, MeshDeps } from '../types.ts'

/** The requests that a concern may send again. */
export interface Repeating {
  /** Bytes of a body that are kept at most, 0: none; null leaves it to other concerns. */
  readonly maxBody: number | null
  readonly mayRepeat: (opts: DispatchOptions) => boolean
  /**
   * Share of the calls that repeats may add. The concern that sets it counts calls towards the budget and rules for the
   * others: they take what it says of bodies and requests. Default: it leaves that to another one.
   */
  readonly budget?: number
}

/** Says which requests a concern may send again under a policy; null if it sends none. Called as layers are. */
export type Repeats = (policy: MeshPolicy, service: Service, context: MeshDeps) => Repeating | null
