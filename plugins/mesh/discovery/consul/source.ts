/**
 * Source of instances from Consul, by blocking queries: Consul holds a query until the result changes, so a change
 * arrives at once without polling. The loop survives every error, with a backoff, and the last set stays in use. An
 * empty set must be confirmed, see `#isProven`.
 */
import type { ServiceConfig } from '../../../../config/schema.ts'
import { TokenBucket } from '../../core/token-bucket.ts'
import type { InstanceSpec, MeshDeps, SourceStatus } from '../../core/types.ts'
import type { QueryResult, RunQuery } from '../consul-query.ts'
import { ConsulDenied } from '../consul-query.ts'
import type { DiscoveryCounters, Publish, Restorable } from '../loop.ts'
import { backoff, messageOf, Publisher, pause } from '../loop.ts'
import type { ConsulClient } from './client.ts'
import type { TranslateOptions } from './translate.ts'
import { translate } from './translate.ts'

/** Changed by tests only. */
export const consulTiming = {
  /** Most consecutive queries without a pause, and the interval of further ones if Consul does not hold them. */
  burst: 5,
  interval: 1000,
  /** Time for which an empty result must last. A restarted Consul knows its services again after 2 to 5 s. */
  emptyGrace: 5000,
  /** Longest pause after the first failed query; doubled with each further one. */
  backoff: 200
}

/** A datacenter whose instances are used while none of an earlier one is available. */
interface FailoverDatacenter {
  readonly datacenter: string
  /** Position among the failover datacenters, from 1. */
  readonly rank: number
}

export class ConsulSource implements Restorable {
  readonly #name: string
  readonly #query: { service: string; datacenter: string | undefined }
  readonly #filter: TranslateOptions
  readonly #client: ConsulClient
  readonly #ask: RunQuery
  readonly #deps: MeshDeps
  readonly #counters: DiscoveryCounters
  readonly #timing: typeof consulTiming
  readonly #abort = new AbortController()
  #running: Promise<void> | null = null
  #index: bigint | null = null
  #failures = 0
  #confirmedAt: number | null = null
  #error: string | null = null
  readonly #warned = new Set<string>()
  /** Time since which Consul has responded without an error or a reset of its index. */
  #steadySince = Number.NEGATIVE_INFINITY
  #emptySince: number | null = null
  /** Instances of the discovery snapshot are in use; Consul has not responded yet. */
  #restored = false

  constructor(
    service: ServiceConfig,
    client: ConsulClient,
    deps: MeshDeps,
    counters: DiscoveryCounters,
    timing = consulTiming,
    failover?: FailoverDatacenter
  ) {
    const { consul, name, mesh } = service
    const connect = mesh.mode === 'connect'
    const ignoreChecks = mesh.healthCheck ? mesh.healthCheck.insteadOfConsul : false
    this.#name = name
    const datacenter = failover?.datacenter ?? consul?.datacenter ?? client.datacenter
    this.#query = { service: consul?.service ?? name, datacenter }
    const { tags = [], passingOnly = true } = consul ?? {}
    this.#filter = { tags, passingOnly, connect, ignoreChecks, ...(failover && { failover }) }
    this.#client = client
    this.#ask = client.queryOf(connect)
    this.#deps = deps
    this.#counters = counters
    this.#timing = timing
  }

  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    this.#counters.begin(this.#name)
    this.#restored = restored !== undefined
    this.#running ??= this.#run(new Publisher(publish, () => this.#counters.update(this.#name), restored))
  }

  status(): SourceStatus {
    return { kind: 'consul', confirmedAt: this.#confirmedAt, error: this.#error }
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#running
    this.#client.forget(this)
  }

  async #run(publisher: Publisher): Promise<void> {
    const { signal } = this.#abort
    const { now, random } = this.#deps
    const bucket = new TokenBucket(this.#timing.burst, this.#timing.interval, now)
    while (!signal.aborted) {
      await pause(bucket.reserve(), signal)
      if (signal.aborted) return
      try {
        const answer = await this.#ask({ ...this.#query, index: this.#index, wait: this.#wait() }, signal)
        if (!signal.aborted) this.#take(answer, publisher)
      } catch (error) {
        if (signal.aborted) return
        this.#fail(error, publisher.serving)
        await pause(backoff(this.#failures, random, this.#timing.backoff), signal)
      }
    }
  }

  /**
   * Returns for how long Consul holds the query; while an empty result is being confirmed, only until that is decided.
   */
  #wait(): number {
    if (this.#emptySince === null) return this.#client.wait
    return Math.max(1, this.#timing.emptyGrace - (this.#deps.now() - this.#emptySince))
  }

  #take({ index, entries, filtered }: QueryResult, publisher: Publisher): void {
    const now = this.#deps.now()
    const { instances, listed, skipped } = translate(entries, this.#filter)
    if (filtered && listed === 0) {
      throw new ConsulDenied('Consul hides all instances from the token: it needs service:read and node:read')
    }
    // An index that goes backwards or is missing indicates a restored, restarted or lagging server, or a proxy in
    // between: start over without an index.
    const reset = this.#index !== null && (index === null || index < this.#index)
    const advanced = this.#index !== null && index !== null && index > this.#index
    this.#index = reset ? null : index
    if (reset) this.#counters.reset(this.#name)
    // After a reset, a failure or a restart of the gateway, Consul must prove stable again.
    if (reset || this.#failures > 0 || this.#restored) {
      this.#steadySince = now
      this.#emptySince = null
    }
    this.#failures = 0
    this.#restored = false
    this.#client.succeeded(this, this.#query.datacenter)
    if (skipped > 0) this.#warnOnce('Consul lists instances without a usable address or port; they are ignored')
    if (filtered)
      this.#warnOnce('Consul hides some instances from the token: it needs service:read and node:read for all of them')
    const emptied = instances.length === 0 && publisher.serving
    if (!emptied) this.#emptySince = null
    else if (!this.#isProven(advanced && skipped === 0, now)) {
      this.#error = 'Consul lists no instance; the last ones stay in use until that is confirmed'
      return
    }
    publisher.offer(instances)
    this.#confirmedAt = now
    this.#error = null
  }

  /**
   * Returns whether an empty result is confirmed. It is at once if Consul has been stable for `emptyGrace` and its
   * index has grown. After an outage or a restart, services and their checks need some seconds to come back; and a
   * result whose index has not changed or is missing, or whose entries are malformed, proves nothing. Then it must stay
   * empty for `emptyGrace`.
   */
  #isProven(changed: boolean, now: number): boolean {
    this.#emptySince ??= now
    const long = now - this.#timing.emptyGrace
    if (!(changed && this.#steadySince <= long) && this.#emptySince > long) return false
    this.#emptySince = null
    return true
  }

  #fail(error: unknown, hasInstances: boolean): void {
    this.#failures++
    // Drop the index: a restarted Consul would hold a query with an old, higher index for the whole wait.
    this.#index = null
    this.#error = messageOf(error)
    this.#counters.error(this.#name)
    this.#client.failed(this, { ...this.#query, service: this.#name }, error, hasInstances)
  }

  #warnOnce(message: string): void {
    if (this.#warned.has(message)) return
    this.#warned.add(message)
    this.#deps.log.warn({ service: this.#name }, message)
  }
}
