/** Instances as people and programs describe them: in a file, or by a source of a user. */
import type { InstanceSpec } from '../core/types.ts'

/** Most instances of one service. */
export const mostInstances = 10_000

export interface Described {
  /** Scheme, host and port. */
  readonly url: string
  /** Unique in its service, and stable over updates. Default: scheme, host and port. */
  readonly id?: string | undefined
  readonly weight?: number | undefined
  readonly tags?: readonly string[] | undefined
  readonly meta?: Readonly<Record<string, string>> | undefined
  /** Zone and datacenter, for `balance.locality`. */
  readonly zone?: string | undefined
  readonly datacenter?: string | undefined
}

export function specOf({ url, id, weight = 1, tags = [], meta = {}, zone, datacenter }: Described): InstanceSpec {
  const { origin } = new URL(url)
  const place = { ...(zone !== undefined && { zone }), ...(datacenter !== undefined && { datacenter }) }
  return { id: id ?? origin, origin, weight, tags, meta: { ...meta, ...place } }
}

/** Instances by the name of the service, or a list for any service. */
export type Listed = ReadonlyMap<string, readonly InstanceSpec[]> | readonly InstanceSpec[]
