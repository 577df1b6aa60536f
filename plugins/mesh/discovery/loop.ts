/** Base of the discovery loops: backoff between retries, metrics, and publication of changed sets of instances. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Meter } from '../../meter.ts'
import type { InstanceSpec, Source } from '../core/types.ts'

/**
 * Returns an exponential backoff with full jitter, so that gateways which lost the same server do not retry in step.
 * The first retry comes within `base`.
 */
export function backoff(failures: number, random: () => number, base = 200, cap = 15_000): number {
  return Math.floor(random() * Math.min(cap, base * 2 ** Math.min(failures - 1, 30)))
}

/** Resolves after the time, or at once when aborted; the loop then checks its signal. */
export async function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms > 0) await sleep(ms, undefined, { signal }).catch(() => {})
}

export const messageOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error)
  // A refused connection to a name with two addresses is an AggregateError with an empty message.
  return error.message || ('code' in error && String(error.code)) || error.name
}

export type Publish = (instances: readonly InstanceSpec[]) => void

/** A source that may start with instances restored from the discovery snapshot, which are in use already. */
export interface Restorable extends Source {
  start(publish: Publish, restored?: readonly InstanceSpec[]): void
}

/** Counters of discovery; the age of the instances is a gauge over `Source.status()`. */
export interface DiscoveryCounters {
  /** Creates the series of a service, else rate() misses their first step. */
  begin(service: string): void
  error(service: string): void
  update(service: string): void
  reset(service: string): void
}

export function discoveryCounters(meter: Meter | null): DiscoveryCounters {
  const errors = meter?.counter({
    name: 'jingwei_mesh_discovery_errors_total',
    help: 'Failed queries for the instances of a service.',
    labelNames: ['service']
  })
  const updates = meter?.counter({
    name: 'jingwei_mesh_discovery_updates_total',
    help: "Changes of a service's set of instances.",
    labelNames: ['service']
  })
  const resets = meter?.counter({
    name: 'jingwei_mesh_discovery_index_resets_total',
    help: "Resets of Consul's index: it went backwards or was missing, as after a restart or a restored backup.",
    labelNames: ['service']
  })
  return {
    begin: (service) => {
      for (const counter of [errors, updates, resets]) counter?.labels(service).inc(0)
    },
    error: (service) => errors?.labels(service).inc(),
    update: (service) => updates?.labels(service).inc(),
    reset: (service) => resets?.labels(service).inc()
  }
}

/** Publishes the first set of instances, and then each set that differs from the previous one. */
export class Publisher {
  readonly #publish: Publish
  readonly #onUpdate: () => void
  #last: string | null
  /** The frozen list that was published last, which need not be compared. */
  #list: readonly InstanceSpec[] | null = null
  #size: number

  /** Takes the `restored` instances, which are in use already, as the last published set. */
  constructor(publish: Publish, onUpdate: () => void, restored?: readonly InstanceSpec[]) {
    this.#publish = publish
    this.#onUpdate = onUpdate
    this.#last = restored === undefined ? null : JSON.stringify(restored)
    this.#size = restored?.length ?? 0
  }

  /** True while the last published set has instances. */
  get serving(): boolean {
    return this.#size > 0
  }

  /** Returns whether a set differs from the last published one. */
  differs(instances: readonly InstanceSpec[]): boolean {
    return instances !== this.#list && JSON.stringify(instances) !== this.#last
  }

  offer(instances: readonly InstanceSpec[]): void {
    if (instances === this.#list) return
    const text = JSON.stringify(instances)
    const isNew = text !== this.#last
    if (isNew) this.#publish(instances)
    this.#list = Object.isFrozen(instances) ? instances : null
    if (!isNew) return
    this.#last = text
    this.#size = instances.length
    this.#onUpdate()
  }
}
