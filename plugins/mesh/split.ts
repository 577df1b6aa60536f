import type { HashSource, SplitShare } from '../../config/schema.ts'
import { hash32 } from './balancing/hash.ts'
import { weightedSampler } from './balancing/weighted.ts'
import { cookieOf, fieldReader, headerOf } from './core/request-fields.ts'
import { CookieHandler, mint } from './core/sticky-cookie.ts'
import type { Dispatch, DispatchOptions, MeshDeps } from './core/types.ts'

interface Target {
  readonly share: SplitShare
  readonly dispatch: Dispatch
}

/**
 * Seed of its own: with the balancer's, all calls that the split sends to one service would hash to one part of its
 * ring.
 */
const seed = 0x5eed

/**
 * Distributes calls among services: to the first share whose `match` fits, else to one by weight; with `stickOn` always
 * to the same one for the same caller.
 */
export function split(
  targets: readonly Target[],
  stickOn: HashSource | undefined,
  { random }: Pick<MeshDeps, 'random'>
): Dispatch {
  const weights = targets.map(({ share }) => share)
  const matched = targets.flatMap(({ share, dispatch }) => {
    const fits = matcher(share.match)
    return fits === null ? [] : [{ fits, dispatch }]
  })
  const byWeight = stickOn === undefined ? anew(targets, weights, random) : sticking(targets, weights, stickOn, random)
  if (matched.length === 0) return byWeight
  return (opts, handler) => (matched.find(({ fits }) => fits(opts))?.dispatch ?? byWeight)(opts, handler)
}

function anew(targets: readonly Target[], weights: readonly SplitShare[], random: () => number): Dispatch {
  const sample = weightedSampler(weights, random)
  return (opts, handler) => targets[sample()]!.dispatch(opts, handler)
}

/** Chooses by a hash of `stickOn`; a caller without the cookie that it names gets one. */
function sticking(
  targets: readonly Target[],
  weights: readonly SplitShare[],
  stickOn: HashSource,
  random: () => number
): Dispatch {
  let point = 0
  const sample = weightedSampler(weights, () => point)
  const read = fieldReader(stickOn)
  const cookie = stickOn.startsWith('cookie:') ? stickOn.slice('cookie:'.length) : null
  return (opts, handler) => {
    let key = read(opts)
    if (key === undefined && cookie !== null) {
      const minted = mint(cookie, '', opts.caller, random)
      key = minted.key
      opts = { ...opts, minted }
      handler = new CookieHandler(handler, minted)
    }
    point = key === undefined ? random() : hash32(key, seed) / 2 ** 32
    return targets[sample()]!.dispatch(opts, handler)
  }
}

/** Returns a predicate for calls that fit every condition of a share's `match`; null if the share has none. */
export function matcher(match: SplitShare['match']): ((opts: DispatchOptions) => boolean) | null {
  if (match === undefined) return null
  const headers = Object.entries(match.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const)
  const cookies = Object.entries(match.cookies ?? {})
  const consumers = match.consumers === undefined ? null : new Set(match.consumers)
  return (opts) =>
    headers.every(([name, value]) => headerOf(opts, name) === value) &&
    cookies.every(([name, value]) => cookieOf(opts, name) === value) &&
    (consumers === null || consumers.has(opts.caller?.consumer?.id ?? ''))
}
