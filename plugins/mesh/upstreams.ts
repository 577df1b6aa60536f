/**
 * Services at run time, with their shared dependencies: clock, discovery, credentials, locality. They outlive a
 * configuration; the `Mesh` of one configuration composes its chains over them.
 */
import type { DiscoveryOptions, ServiceConfig } from '../../config/schema.ts'
import type { Timers } from '../clock.ts'
import type { Meter } from '../meter.ts'
import { OwnMeter } from '../meter.ts'
import type { Steps } from '../time-slices.ts'
import { Exhaustion } from './connect/exhaustion.ts'
import type { InboundService } from './connect/inbound.ts'
import type { Transport } from './connect/index.ts'
import { Transports } from './connect/index.ts'
import { LoopClock } from './core/loop-clock.ts'
import { registerServiceMetrics } from './core/metrics.ts'
import { Service } from './core/service.ts'
import type { Logger, MeshDeps } from './core/types.ts'
import type { DiscoverySource } from './discovery/contract.ts'
import { timeFirstRequests } from './discovery/first-request.ts'
import type { Discovery } from './discovery/index.ts'
import { createDiscovery } from './discovery/index.ts'
import { OwnLocality } from './discovery/locality.ts'
import { activeCheck } from './health/active-check.ts'

export interface UpstreamOptions {
  log: Logger
  meter: Meter | null
  /** Source of instances from a registry of your own, in place of the configured ones. */
  discovery?: Discovery
  /** Sources of instances besides the bundled ones. */
  sources?: readonly DiscoverySource[]
  /** Ways to instances, in place of TCP and TLS connections. */
  transport?: (service: ServiceConfig) => Transport
  now?: () => number
  timers?: Timers
  random?: () => number
}

/** Creates services, and closes their shared dependencies once all of them have ended. */
export class Upstreams {
  /** Dependencies of its services. */
  readonly deps: MeshDeps
  readonly #services = new Set<Service>()
  readonly #discovery: Discovery
  readonly #locality: OwnLocality
  readonly #transports: Transports
  readonly #transportOf: (service: ServiceConfig) => Transport
  readonly #exhaustion: Exhaustion
  readonly #meter: OwnMeter | null
  readonly #clock: LoopClock

  constructor(options: DiscoveryOptions, { log, meter, ...given }: UpstreamOptions) {
    this.#meter = meter === null ? null : new OwnMeter(meter)
    this.#exhaustion = new Exhaustion({ log, meter: this.#meter })
    this.#clock = new LoopClock(() => this.#exhaustion.note('JW_OUT_OF_CPU'))
    this.deps = {
      log,
      meter: this.#meter,
      now: given.now ?? this.#clock.now,
      // An injected clock decides for itself what time passes.
      ...(given.timers && { timers: given.timers }),
      ...(given.now === undefined && { stalledMs: this.#clock.stalledMs }),
      noteExhausted: this.#exhaustion.note,
      random: given.random ?? Math.random,
      locality: () => this.#locality.current
    }
    this.#locality = new OwnLocality(options, this.deps, () => {
      for (const service of this.#services) service.rebalance()
    })
    this.#discovery = given.discovery ?? createDiscovery(options, this.deps, given.sources)
    this.#transports = new Transports(options.consul, this.deps)
    this.#transportOf = given.transport ?? ((service) => this.#transports.of(service))
    if (this.#meter !== null) registerServiceMetrics(this.#meter, () => this.#services, this.deps.now)
  }

  /** Creates a service, which does nothing until `start`. Throws if its `mode` lacks a setting that it needs. */
  add(config: ServiceConfig): Service {
    const transport = this.#transportOf(config)
    const service = new Service(config, this.#discovery.source(config), transport, this.deps)
    this.#services.add(service)
    return service
  }

  /** Accepts calls as a service of the mesh; starts with `start`. Throws without Consul. */
  inbound(service: string): InboundService {
    return this.#transports.inbound(service)
  }

  /**
   * Starts the shared dependencies, and then those of these services that have not been started. With `attend: false`
   * no active health checks are made, for commands that only inspect a configuration.
   */
  *start(services: readonly Service[], attend: boolean): Steps<void> {
    this.#clock.start()
    this.#transports.start()
    this.#locality.start(services.some((service) => service.prefersLocal))
    if (attend) this.#discovery.startWriting?.()
    for (const service of services) {
      yield
      if (attend) {
        activeCheck(service, this.deps)
        timeFirstRequests(service, this.deps)
      }
      service.start()
    }
  }

  /** Ends a service: its calls in flight, retries included, have `graceMs`. */
  async end(service: Service, graceMs: number): Promise<void> {
    await service.close(graceMs)
    this.#services.delete(service)
  }

  /** Ends a service at once: its calls in flight fail by the error. */
  async destroy(service: Service, error: Error | null): Promise<void> {
    await service.destroy(error)
    this.#services.delete(service)
  }

  /** Closes the shared dependencies once all services have ended. */
  async close(): Promise<void> {
    await Promise.all([...this.#services].map((service) => service.ended))
    this.#clock.close()
    this.#exhaustion.close()
    this.#meter?.close()
    await Promise.all([this.#discovery.close(), this.#transports.close(), this.#locality.close()])
  }
}
