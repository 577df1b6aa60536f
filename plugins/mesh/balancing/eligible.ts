import type { BalanceOptions } from '../../../config/schema.ts'
import type { Instance } from '../types.ts'

/** Where the gateway itself is. */
export interface Locality {
  readonly datacenter: string | null
  readonly zone: string | null
}

export interface Eligible {
  /** Those that may be chosen, with the weights that count now. */
  readonly instances: readonly Instance[]
  readonly panic: boolean
  /** In how many milliseconds this answer will be out of date by itself; null: never. */
  readonly changesInMs: number | null
}

/** Which instances take part, given their health, and with what weight. */
export function eligible(
  instances: readonly Instance[],
  { panicThreshold }: BalanceOptions,
  _locality: Locality,
  _nowMs: number
): Eligible {
  const available = instances.filter(({ endpoint }) => endpoint.health.available)
  const panic = available.length < instances.length * panicThreshold
  return { instances: panic ? instances : available, panic, changesInMs: null }
}
