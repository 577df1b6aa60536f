/**
 * Instances from DNS, asked again when the TTL ends. A failed answer, NXDOMAIN included, keeps the last set; an empty
 * one is believed when it comes twice.
 */
import { getServers } from 'node:dns'
import { setMaxListeners } from 'node:events'
import type { InstanceSpec, SourceStatus, Surroundings } from '../types.ts'
import { parseServer } from './dns-query.ts'
import type { DnsOptions } from './dns-resolve.ts'
import { Resolver } from './dns-resolve.ts'
import type { DiscoveryCounters, Publish, Restorable } from './loop.ts'
import { backoff, messageOf, Publisher, pause } from './loop.ts'

/** How soon to ask again while there is no instance to call. */
const EMPTY_PAUSE = 2000

export class DnsSource implements Restorable {
  readonly #name: string
  readonly #options: DnsOptions
  readonly #surroundings: Surroundings
  readonly #counters: DiscoveryCounters
  readonly #abort = new AbortController()
  readonly #resolver: Resolver
  #running: Promise<void> | null = null
  #failures = 0
  #empties = 0
  #confirmedAt: number | null = null
  #error: string | null = null

  constructor(name: string, options: DnsOptions, surroundings: Surroundings, counters: DiscoveryCounters) {
    this.#name = name
    this.#options = options
    this.#surroundings = surroundings
    this.#counters = counters
    // Each question in flight listens; many SRV targets are no leak.
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
        const { instances, ttl } = await this.#resolver.resolve()
        if (signal.aborted) return
        delay = this.#take(instances, ttl * 1000, publisher)
      } catch (error) {
        if (signal.aborted) return
        this.#fail(error)
        delay = backoff(this.#failures, this.#surroundings.random)
      }
      await pause(Math.max(delay, this.#options.minTtl), signal)
    }
  }

  /** How long the answer may be kept. */
  #take(instances: readonly InstanceSpec[], ttl: number, publisher: Publisher): number {
    const { log, now } = this.#surroundings
    if (this.#failures > 0) log.info({ service: this.#name }, 'DNS answers again')
    this.#failures = 0
    this.#empties = instances.length === 0 ? this.#empties + 1 : 0
    if (this.#empties === 1 && publisher.serving) {
      this.#error = 'DNS lists no instance; asking again before that is believed'
      return EMPTY_PAUSE
    }
    publisher.offer(instances)
    this.#confirmedAt = now()
    this.#error = null
    return instances.length === 0 ? EMPTY_PAUSE : Math.min(ttl, this.#options.maxTtl)
  }

  #fail(error: unknown): void {
    this.#error = messageOf(error)
    this.#counters.error(this.#name)
    if (++this.#failures > 1) return
    const fields = { service: this.#name, err: this.#error }
    this.#surroundings.log.warn(fields, 'DNS gives no answer; the service goes on with the instances last known')
  }
}
