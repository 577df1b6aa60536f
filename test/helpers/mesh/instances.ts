/** Instances without a network, seeded randomness, and statistics. */
import { balanceOptions } from '../../../plugins/mesh/balancing/policy.ts'
import type { BalanceOptions } from '../../../plugins/mesh/balancing/schema.ts'
import type { Balancer, Instance } from '../../../plugins/mesh/core/types.ts'
import { InstanceHealth } from '../../../plugins/mesh/health/health.ts'

/** One instance; `now` is the clock of its health. */
export function instanceOf(
  id: string,
  {
    weight = 1,
    active = 0,
    meta = {},
    now = () => 0
  }: { weight?: number; active?: number; meta?: Record<string, string>; now?: () => number } = {}
): Instance {
  const health = new InstanceHealth(now, () => {})
  const endpoint = {
    origin: id,
    active,
    latencyMs: null,
    health,
    onAttempt: null,
    maxConnections: 1024,
    isFull: () => false,
    dispatch: () => true
  }
  return { id, origin: id, weight, tags: [], meta, endpoint }
}

/** Instances a, b, c … with these weights. */
export function instances(weights: readonly number[], active: readonly number[] = []): Instance[] {
  return weights.map((weight, i) =>
    instanceOf('abcdefghijklmnopqrstuvwxyz'[i]!, { weight, ...(active[i] !== undefined && { active: active[i] }) })
  )
}

/** `count` instances of a service on nodes of their own. */
export function fleet(count: number, weightOf: (index: number) => number = () => 1): Instance[] {
  return Array.from({ length: count }, (_, i) => instanceOf(`node-${i}/orders`, { weight: weightOf(i) }))
}

export function options(more: Partial<BalanceOptions> = {}): BalanceOptions {
  return { ...balanceOptions('round-robin'), ...more }
}

/** mulberry32: small, seeded, good enough for these counts. */
export function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Evenly spread hashes. */
export function hashes(count: number, seed = 11): number[] {
  const random = seeded(seed)
  return Array.from({ length: count }, () => random() * 2 ** 32)
}

/** Returns the id of the instance that each hash selects. */
export function placed(balancer: Balancer, keys: readonly number[]): string[] {
  return keys.map((hash) => balancer.pick(null, hash)!.id)
}

export function tally(among: readonly Instance[], picks: readonly Instance[]): number[] {
  const counts = new Map<string, number>()
  for (const { id } of picks) counts.set(id, (counts.get(id) ?? 0) + 1)
  return among.map(({ id }) => counts.get(id) ?? 0)
}

export function chiSquare(seen: readonly number[], shares: readonly number[]): number {
  const total = seen.reduce((sum, count) => sum + count, 0)
  const whole = shares.reduce((sum, share) => sum + share, 0)
  return seen.reduce((sum, count, i) => {
    const expected = (total * shares[i]!) / whole
    return sum + (count - expected) ** 2 / expected
  }, 0)
}
