import type { HashSource, SplitShare } from '../../../config/schema.ts'
import { weightedSampler } from '../balancing/weighted.ts'
import type { Dispatch, Surroundings } from '../types.ts'

interface Target {
  readonly share: SplitShare
  readonly dispatch: Dispatch
}

/** Shares calls among services by weight; each goes on as a call to the one drawn. */
export function split(
  targets: readonly Target[],
  _stickOn: HashSource | undefined,
  { random }: Pick<Surroundings, 'random'>
): Dispatch {
  const sample = weightedSampler(
    targets.map(({ share }) => share),
    random
  )
  return (opts, handler) => targets[sample()]!.dispatch(opts, handler)
}
