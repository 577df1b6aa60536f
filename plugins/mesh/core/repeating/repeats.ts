import type { MeshPolicy } from '../../../../config/schema.ts'
import type { DispatchOptions } from '../types.ts'

/** Says which requests a concern may send again under a policy; null if it sends none. */
export type Repeats = (policy: MeshPolicy) => {
  /** Bytes of a body that are kept at most; null leaves it to other concerns. */
  readonly maxBody: number | null
  readonly mayRepeat: (opts: DispatchOptions) => boolean
} | null
