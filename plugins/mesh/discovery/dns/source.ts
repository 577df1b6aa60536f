/**
 * Source of instances from DNS, which is queried again when the TTL ends. After a failure (SERVFAIL, no response) the
 * last set stays in use. An empty response and NXDOMAIN mean that the service has no instances. While instances are in
 * use, this must last before it is accepted: a DNS server that has just restarted (Consul's, a cluster's) knows its
 * services only after some seconds.
 */
import { getServers } from 'node:dns'
import { setMaxListeners } from 'node:events'
import { asError } from '../../../thrown.ts'
import type { InstanceSpec, MeshDeps, SourceStatus } from '../../core/types.ts'
import type { DiscoveryCounters, Publish, Restorable } from '../loop.ts'
import { backoff, messageOf, Publisher, pause } from '../loop.ts'
import { packets, parseServer } from './query.ts'
import type { DnsOptions, Resolved } from './resolve.ts'
import { Resolver } from './resolve.ts'

/** Changed by tests only. */
export const dnsTiming = {
  /** Pause before the next query while there is no instance. */
  emptyPause: 2000,
  /** Time for which an empty response must last while instances are in use. */
  emptyGrace: 5000
}

export class DnsSource implements Restorable {
  readonly #name: string
  readonly #options: DnsOptions
  readonly #deps: MeshDeps
  readonly #counters: DiscoveryCounters
  readonly #abort = new AbortController()
  readonly #resolver: Resolver
  #running: Promise<void> | null = null
  readonly #timing: typeof dnsTiming
  #failures = 0
  #emptySince: number | null = null
  /** True if it has been logged that the name does not exist. */
  #nonexistent = false
  #confirmedAt: number | null = null
  #error: string | null = null

  constructor(name: string, options: DnsOptions, deps: MeshDeps, counters: DiscoveryCounters, timing = dnsTiming) {
    packets() // loaded now: a reload with a package that cannot be loaded must fail
    this.#name = name
    this.#options = options
    this.#deps = deps
    this.#counters = counters
    this.#timing = timing
    // Each query in flight adds a listener; many SRV targets are no leak.
    setMaxListeners(0, this.#abort.signal)
    const own = options.server === undefined ? null : [parseServer(options.server)]
    this.#resolver = new Resolver(options, () => own ?? getServers().map(parseServer), this.#abort.signal)
  }

  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    this.#counters.begin(this.#name)
    this.#running ??= this.#run(new Publisher(publish, () => this.#counters.update(this.#name), restored))
  }

  status(): SourceStatus {
    return { kind: 'dns', confirmedAt: this.#confirmedAt, error: this.#error }
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#running
  }

  async #run(publisher: Publisher): Promise<void> {
    const { signal } = this.#abort
    while (!signal.aborted) {
      let delay: number
      try {
        const resolved = await this.#resolver.resolve()
        if (signal.aborted) return
        delay = this.#take(resolved, publisher)
      } catch (error) {
        if (signal.aborted) return
        this.#fail(error, publisher.serving)
        delay = backoff(this.#failures, this.#deps.random)
      }
      await pause(Math.max(delay, this.#options.minTtl), signal)
    }
  }

  /** Processes a response; returns the time until the next query. */
  #take({ instances, ttl, nonexistent }: Resolved, publisher: Publisher): number {
    const { log, now } = this.#deps
    const { emptyPause, emptyGrace } = this.#timing
    if (this.#failures > 0) log.info({ service: this.#name }, 'DNS available again')
    this.#failures = 0
    const missing = nonexistent ? `DNS name ${this.#options.host} does not exist` : null
    if (instances.length > 0) this.#emptySince = null
    else {
      this.#emptySince ??= now()
      if (publisher.serving && now() - this.#emptySince < emptyGrace) {
        this.#error = `${missing ?? 'DNS lists no instance'}; the last instances stay in use until that is confirmed`
        return emptyPause
      }
    }
    publisher.offer(instances)
    this.#confirmedAt = now()
    this.#error = missing
    this.#logExistence(missing)
    return instances.length === 0 ? emptyPause : Math.min(ttl * 1000, this.#options.maxTtl)
  }

  /** Logs once that the name does not exist, and once that it exists again. */
  #logExistence(missing: string | null): void {
    if (this.#nonexistent === (missing !== null)) return
    this.#nonexistent = missing !== null
    const { log } = this.#deps
    const service = this.#name
    if (missing !== null) log.warn({ service }, `${missing}; service ${service} has no instances`)
    else log.info({ service }, `DNS name ${this.#options.host} of service ${service} exists again`)
  }

  #fail(error: unknown, hasInstances: boolean): void {
    this.#error = messageOf(error)
    this.#emptySince = null
    this.#counters.error(this.#name)
    if (++this.#failures > 1) return
    const fields = { service: this.#name, err: asError(error) }
    const consequence = hasInstances
      ? 'keeps the instances last known'
      : 'has no instances, so it responds with 503 until DNS is available'
    this.#deps.log.warn(fields, `DNS unavailable; service ${this.#name} ${consequence}`)
  }
}
