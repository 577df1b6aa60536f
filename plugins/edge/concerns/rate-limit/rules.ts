/** Limits of one route, made from the options. */
import type { Claims } from '../../../stores.ts'
import type { Algorithm, Quota } from './algorithms.ts'
import { algorithms } from './algorithms.ts'
import type { Ceiling } from './concurrency.ts'
import { Entries } from './entries.ts'
import type { HeaderStyle } from './headers.ts'
import { policyName } from './headers.ts'
import type { KeyOf } from './keys.ts'
import { addressKey, keyBy, perDirection } from './keys.ts'
import { Leases } from './leases.ts'
import type { By, CeilingOptions, LimitOptions, RateLimitOptions } from './options.ts'
import { counterOf, isCeiling, isOfCaller, limitsOf } from './options.ts'

export interface Rule {
  readonly quota: Quota
  readonly algorithm: Algorithm
  readonly keyOf: KeyOf
  readonly cost: number
  /** Response header with the units that a request has used, in lower case. */
  readonly costHeader: string | undefined
  readonly keepsCostHeader: boolean
  /** Units that are taken from Redis at a time; null to ask for each request. */
  readonly leases: Leases | null
  readonly by: By
  /** Counters in this process: of the limit, or of this node's share of it while Redis does not respond. */
  readonly entries: Entries
  /** Beginning of the keys in Redis; null for a limit in this process. */
  readonly shared: string | null
  readonly onFailure: NonNullable<LimitOptions['onFailure']>
  /** True if the key is known only after authentication. */
  readonly isLate: boolean
  /** True if this node applies the limit divided by the number of nodes. */
  readonly isDivided: boolean
  /** True if the limit only counts what it would refuse. */
  readonly isShadow: boolean
  /** True for `maxPerAddress`: the headers show it only if it refuses. */
  readonly isSecond: boolean
  readonly headers: HeaderStyle
  readonly policy: string
}

export interface RuleContext {
  readonly stores: Claims
  /** Returns the number of nodes of this gateway, 0 while it is not known. */
  readonly nodes: () => number
  /** Name of the counters of the route. */
  readonly counted: string
  readonly hasBothDirections: boolean
}

/** All limits of a route, or of a consumer on a route. */
export interface Limits {
  readonly rules: readonly Rule[]
  readonly ceilings: readonly Ceiling[]
}

export function limitsFor(options: RateLimitOptions, context: RuleContext): Limits {
  const policies = new Set<string>()
  const all = limitsOf(options)
  const rules = all.flatMap((limit) => {
    if (isCeiling(limit)) return []
    const unique = (name: string) => {
      let policy = name
      for (let i = 2; policies.has(policy); i++) policy = `${name}-${i}`
      policies.add(policy)
      return policy
    }
    return rulesOf(limit, unique, !Array.isArray(options), context)
  })
  return { rules, ceilings: all.filter(isCeiling).map((limit) => ceilingOf(limit, context)) }
}

function ceilingOf(limit: CeilingOptions, { stores, nodes, counted, hasBothDirections }: RuleContext): Ceiling {
  const keyOf = keyBy(limit)
  const { maxConcurrent: most } = limit
  const at = limit.name === undefined ? counted : `@${limit.name}`
  return {
    most: limit.share === true ? () => Math.max(1, Math.floor(most / Math.max(1, nodes()))) : () => most,
    keyOf: hasBothDirections ? perDirection(keyOf) : keyOf,
    // In a store, since requests in flight continue after a reload.
    inFlight: claim(stores, 'jingwei.rate-limit.in-flight', [at, counterOf(limit)], () => new Map<string, number>()),
    isLate: isOfCaller(limit.by),
    isShadow: limit.mode === 'shadow'
  }
}

/** Claims state, also for the limits of a consumer, which are made when the consumer is seen first. */
function claim<T>(stores: Claims, kind: string, key: unknown, create: () => T): T {
  try {
    return stores.claim(kind, key, create)
  } catch {
    // The configuration has ended, and only requests that it began are left.
    return create()
  }
}

/** `unique` returns a name of a policy that no other limit has. */
function rulesOf(limit: LimitOptions, unique: (name: string) => string, isOnly: boolean, context: RuleContext): Rule[] {
  const { max, window, by, name, algorithm = 'fixed-window', cost = 1, maxPerAddress, store, burst = max } = limit
  const counted = name === undefined ? context.counted : `@${name}`
  const directed = (keyOf: KeyOf) => (context.hasBothDirections ? perDirection(keyOf) : keyOf)
  // A single fixed window has the keys of earlier versions, with which it shares the counters while a cluster is updated.
  const isPlain = isOnly && name === undefined && algorithm === 'fixed-window'
  const kind = isPlain ? '' : `/${algorithms[algorithm].tag}${window}/${[by].flat().join()}`
  const quota = { max, window, burst }
  const rule: Rule = {
    quota,
    algorithm: algorithms[algorithm],
    keyOf: directed(keyBy(limit)),
    cost,
    costHeader: limit.costHeader?.toLowerCase(),
    keepsCostHeader: limit.keepCostHeader === true,
    leases: limit.lease === undefined ? null : new Leases(limit.lease),
    by,
    // Without `max`: after a change of the limit, counting continues.
    entries: claim(
      context.stores,
      'jingwei.rate-limit.entries',
      [counted, counterOf(limit)],
      () => new Entries(algorithms[algorithm], quota)
    ),
    shared: store === 'redis' ? `jingwei:rl:${counted}${kind}:` : null,
    onFailure: limit.onFailure ?? 'share',
    isLate: isOfCaller(by),
    isDivided: limit.share === true,
    isShadow: limit.mode === 'shadow',
    isSecond: false,
    headers: limit.headers ?? 'separate',
    policy: unique(policyName(limit))
  }
  if (maxPerAddress === undefined) return [rule]
  const address = directed(addressKey(limit.ipv6Prefix))
  // Another key than that of requests without the header, which are counted by address too.
  const keyOf: KeyOf = (request) => `all:${address(request)}`
  const most = { max: maxPerAddress, window, burst: maxPerAddress }
  const leases = limit.lease === undefined ? null : new Leases(limit.lease)
  const policy = unique(name === undefined ? policyName({ max: maxPerAddress, window }) : `${name}-per-address`)
  return [{ ...rule, quota: most, keyOf, leases, by: 'ip', isLate: false, isSecond: true, policy }, rule]
}
