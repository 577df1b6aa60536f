/**
 * One service in several datacenters. All are watched all the time, so that a failover needs no query to a registry
 * when it happens. Their instances are one set; `eligible` decides by their rank which of them are used.
 */
import type { InstanceSpec, SourceStatus } from '../../core/types.ts'
import type { Publish, Restorable } from '../loop.ts'

/** Time for which failover datacenters wait at the start for the first datacenter. Changed by tests only. */
const failoverTiming = { headStart: 3000 }

export class FailoverSource implements Restorable {
  readonly #primary: Restorable
  readonly #others: readonly { readonly datacenter: string; readonly source: Restorable }[]
  /** Instances by rank; null until the datacenter has responded. */
  readonly #sets: (readonly InstanceSpec[] | null)[]
  readonly #headStart: number
  #publish: Publish = () => {}
  #waiting = true
  #restored = false
  #timer: NodeJS.Timeout | undefined

  constructor(
    primary: Restorable,
    others: readonly { readonly datacenter: string; readonly source: Restorable }[],
    { headStart } = failoverTiming
  ) {
    this.#primary = primary
    this.#others = others
    this.#sets = [null, ...others.map(() => null)]
    this.#headStart = headStart
  }

  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    this.#publish = publish
    this.#restored = restored !== undefined
    this.#waiting = !this.#restored
    if (this.#waiting) this.#timer = setTimeout(() => this.#goOn(), this.#headStart)
    const sources = [this.#primary, ...this.#others.map(({ source }) => source)]
    for (const [rank, source] of sources.entries()) {
      const own = restored?.filter(({ meta }) => (Number(meta['failover-rank']) || 0) === rank)
      if (own !== undefined) this.#sets[rank] = own
      source.start((instances) => this.#take(rank, instances), own)
    }
  }

  #take(rank: number, instances: readonly InstanceSpec[]): void {
    this.#sets[rank] = instances
    if (rank === 0) this.#waiting = false
    if (!this.#waiting) this.#offer()
  }

  /** Publishes the failover datacenters if the first one has not responded in time. */
  #goOn(): void {
    if (!this.#waiting) return
    this.#waiting = false
    if (this.#sets.some((set) => set !== null)) this.#offer()
  }

  #offer(): void {
    const merged = new Map<string, InstanceSpec>()
    for (const instance of this.#sets.flatMap((set) => set ?? [])) {
      if (!merged.has(instance.id)) merged.set(instance.id, instance)
    }
    this.#publish(Object.freeze([...merged.values()]))
  }

  /** Returns the status of the first datacenter, with the errors of the others. */
  status(): SourceStatus {
    const status = this.#primary.status()
    const others = this.#others.map(({ datacenter, source }) => [datacenter, source.status()] as const)
    // Until the first has responded, the instances are as old as those of the others.
    const confirmed = this.#waiting || this.#restored ? [] : others.flatMap(([, { confirmedAt }]) => confirmedAt ?? [])
    const confirmedAt = status.confirmedAt ?? (confirmed.length > 0 ? Math.min(...confirmed) : null)
    return {
      ...status,
      confirmedAt,
      failover: Object.fromEntries(others.map(([datacenter, { error }]) => [datacenter, error]))
    }
  }

  async close(): Promise<void> {
    clearTimeout(this.#timer)
    await Promise.all([this.#primary, ...this.#others.map(({ source }) => source)].map((source) => source.close()))
  }
}
