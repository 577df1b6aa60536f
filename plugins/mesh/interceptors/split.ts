import { weightedSampler } from '../balancing/weighted.ts'
import type { Dispatch } from '../types.ts'

/** Shares calls among services by weight; each goes on as a call to the one drawn. */
export function split(targets: readonly { weight: number; dispatch: Dispatch }[], random: () => number): Dispatch {
  const sample = weightedSampler(targets, random)
  return (opts, handler) => targets[sample()]!.dispatch(opts, handler)
}
