import { AsyncResource } from 'node:async_hooks'
import { Dispatcher } from 'undici'
import type { RoutePolicy, ServiceConfig } from '../../config/schema.ts'
import type { Meter } from '../meter.ts'
import type { MeshConcern } from './concern.ts'
import { Exhaustion } from './connect/exhaustion.ts'
import { Transports } from './connect/index.ts'
import { MeshError } from './core/errors.ts'
import type { LayerContext } from './core/layer.ts'
import { LoopClock } from './core/loop-clock.ts'
import { OwnMeter, registerServiceMetrics } from './core/metrics.ts'
import { nameOf, originOf } from './core/origin.ts'
import { Service } from './core/service.ts'
import type { DiscoveryStatus, ServiceStatus } from './core/service-status.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, FaultOwners, Interceptor, Logger } from './core/types.ts' // biome-ignore format: a list
import { timeFirstRequests } from './discovery/first-request.ts'
import type { Discovery, DiscoveryOptions } from './discovery/index.ts'
import { createDiscovery } from './discovery/index.ts'
import type { LocalityOptions } from './discovery/locality.ts'
import { OwnLocality } from './discovery/locality.ts'
import type { Explanation } from './explain.ts'
import { explain } from './explain.ts'
import { activeCheck } from './health/active-check.ts'
import { isCreationObserved } from './http/diagnostics.ts'
import type { Chain, Order, UseOptions } from './interceptors.ts'
import { Interceptors } from './interceptors.ts'
import { split } from './split.ts'

export interface MeshConfig {
  readonly services: Readonly<Record<string, ServiceConfig>>
  /** The routes whose names interceptors may be for. */
  readonly routes?: readonly { readonly name: string }[]
  readonly discovery?: DiscoveryOptions & LocalityOptions
}

export interface MeshOptions {
  log?: Logger
  meter?: Meter
  /** Instances from a registry of your own; the configuration then says nothing of where services are. */
  discovery?: Discovery
  now?: () => number
  random?: () => number
  /** Request headers whose value is new for each request, such as a request id: they make no request another one. */
  perRequestHeaders?: readonly string[]
  /** Contains what interceptors throw from timers and sockets of their own. */
  owners?: FaultOwners | null
}

const silent: Logger = { info() {}, warn() {}, error() {} }

/**
 * The mesh half: an undici `Dispatcher` whose origins are services, `http://orders.mesh`. A chain of
 * interceptors is composed once per service and per route policy; a call then runs through what is on, and
 * nothing asks whether it is.
 */
export class Mesh extends Dispatcher {
  readonly #services = new Map<string, Service>()
  readonly #chains = new Map<string, { own: Chain | null; byPolicy: WeakMap<RoutePolicy, Chain> }>()
  readonly #discovery: Discovery
  readonly #locality: OwnLocality
  readonly #transports: Transports
  readonly #deps: LayerContext
  readonly #exhaustion: Exhaustion
  readonly #meter: OwnMeter | null
  readonly #clock: LoopClock
  readonly #used: Interceptors
  #closing: Promise<void> | null = null
  /** A request has been dispatched: the chains stay as they are. */
  #inUse = false

  constructor(config: MeshConfig, options: MeshOptions = {}) {
    super()
    const { log = silent } = options
    const meter = options.meter ? new OwnMeter(options.meter) : null
    this.#meter = meter
    this.#used = new Interceptors(options.owners ?? null, config)
    this.#exhaustion = new Exhaustion({ log, meter })
    this.#clock = new LoopClock(() => this.#exhaustion.note('JW_OUT_OF_CPU'))
    this.#deps = {
      log,
      meter,
      now: options.now ?? this.#clock.now,
      // Whoever brings a clock of its own says what time passes.
      ...(options.now === undefined && { stalledMs: this.#clock.stalledMs }),
      noteExhausted: this.#exhaustion.note,
      random: options.random ?? Math.random,
      owners: options.owners ?? null,
      perRequestHeaders: options.perRequestHeaders ?? [],
      locality: () => this.#locality.current,
      repeats: () => this.#used.repeats,
      toService: (name) => (opts, handler) => {
        const { mesh: _ofTheRoute, ...rest } = opts
        return this.dispatch({ ...rest, origin: originOf(name) }, handler)
      }
    }
    this.#locality = new OwnLocality(config.discovery ?? {}, this.#deps, () => {
      for (const service of this.#services.values()) service.rebalance()
    })
    this.#discovery = options.discovery ?? createDiscovery(config.discovery ?? {}, this.#deps)
    this.#transports = new Transports(config.discovery?.consul, this.#deps)
    for (const service of Object.values(config.services)) {
      const transport = this.#transports.of(service)
      this.#services.set(service.name, new Service(service, this.#discovery.source(service), transport, this.#deps))
      this.#chains.set(originOf(service.name), { own: null, byPolicy: new WeakMap() })
    }
    if (meter !== null) registerServiceMetrics(meter, () => this.#services.values(), this.#deps.now)
    // `compose()` calls them on a Proxy, which has no private fields.
    Object.assign(this, { close: this.close.bind(this), destroy: this.destroy.bind(this) })
  }

  /**
   * Begins discovery; calls before the first answer fail with `JW_NO_INSTANCE`. With `attend: false` nothing is asked
   * of the instances themselves, for who only wants to look.
   */
  start({ attend = true } = {}): this {
    this.#clock.start()
    this.#transports.start()
    this.#locality.start([...this.#services.values()].some((service) => service.prefersLocal))
    if (attend) this.#discovery.attend?.()
    for (const service of this.#services.values()) {
      if (attend) {
        // Composed now, so that what attends to a service does so before its first call.
        const { failure } = this.#chainOf(service.name)
        if (failure !== undefined) throw failure
        activeCheck(service, service.config.mesh, this.#deps)
        timeFirstRequests(service, this.#deps)
      }
      service.start()
    }
    return this
  }

  /** Resolves when discovery has answered once for every service, be it that there is no instance. */
  async ready(): Promise<void> {
    await Promise.all([...this.#services.values()].map(({ ready }) => ready))
  }

  /** Adds an interceptor to the chains that it is for. Throws after the first request: some would go without it. */
  use(interceptor: Interceptor, options: UseOptions): this {
    this.#used.add(interceptor, options, this.#inUse)
    return this.#recompose()
  }

  /** Adds a concern of a user's, before or after another one. Throws as `use` does, and for an unknown name. */
  add(concern: MeshConcern, order: Order = {}): this {
    this.#used.addConcern(concern, order, this.#inUse)
    return this.#recompose()
  }

  #recompose(): this {
    for (const [origin] of this.#chains) this.#chains.set(origin, { own: null, byPolicy: new WeakMap() })
    return this
  }

  /** Returns the names of the layers in force for a service, and for a route and a share of its split, outermost first. */
  describe(name: string, policy: RoutePolicy = {}, route = '', share = 0): string[] {
    this.service(name)
    const chain = this.#chainOf(name, Object.keys(policy).length === 0 ? undefined : policy)
    const { layers } = chain.shares?.[share] ?? chain
    return layers.flatMap(({ name, routes }) => (routes?.has(route) === false ? [] : [name]))
  }

  /** Throws `JW_NO_SERVICE`. */
  service(name: string): Service {
    const service = this.#services.get(name)
    if (service === undefined) throw new MeshError('JW_NO_SERVICE', name)
    return service
  }

  /** Explains the way of a call to a service under a route's policy; nothing is sent. */
  explain(name: string, policy: RoutePolicy, opts: DispatchOptions): Explanation[] {
    return explain(this, name, policy, opts)
  }

  status(): ServiceStatus[] {
    return [...this.#services.values()].map((service) => service.status())
  }

  /** Returns what discovery knows of each service. Its cost does not grow with the number of instances. */
  discovery(): DiscoveryStatus[] {
    const services = [...this.#services.values()]
    return services.map(({ name, source, instances }) => ({ name, source, instances: instances.length }))
  }

  /** Milliseconds on the mesh's own clock, in which `status()` gives its times. */
  now(): number {
    return this.#deps.now()
  }

  override dispatch(opts: DispatchOptions, handler: DispatchHandler): boolean {
    const origin = typeof opts.origin === 'string' ? opts.origin : String(opts.origin?.origin)
    const chains = this.#chains.get(origin)
    if (chains === undefined || this.#closing !== null) return this.#refuse(nameOf(origin), handler)
    this.#inUse = true
    const policy = opts.mesh
    const known = policy === undefined ? chains.own : chains.byPolicy.get(policy)
    const { dispatch: chain } = known ?? this.#chainOf(nameOf(origin), policy)
    const { owners } = this.#deps
    if (!owners?.current) return this.#enter(chain, opts, handler)
    // A plugin calls: the timers and sockets that this makes are not the plugin's.
    return owners.run(null, () => this.#enter(chain, opts, handler))
  }

  #enter(chain: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    const variant = this.#used.variantOf(opts)
    const isPlain = this.#used.isEmpty && !isCreationObserved()
    if (variant === undefined && (opts.asyncContext !== undefined || isPlain)) return chain(opts, handler)
    // Events that the call waits for, such as a connection or the end of another call, occur in other contexts.
    const { asyncContext = new AsyncResource('jingwei.call') } = opts
    return chain({ ...opts, asyncContext, variant }, handler)
  }

  /** Returns the chain of a service under a policy: composed once, for calls and for `describe` alike. */
  #chainOf(name: string, policy?: RoutePolicy): Chain {
    const chains = this.#chains.get(originOf(name))!
    const known = policy === undefined ? chains.own : chains.byPolicy.get(policy)
    if (known) return known
    const chain = this.#compose(name, policy)
    if (policy === undefined) chains.own = chain
    else chains.byPolicy.set(policy, chain)
    return chain
  }

  #compose(name: string, { split: shares, stickOn, ...override }: RoutePolicy = {}): Chain {
    if (shares !== undefined) {
      const chains = shares.map(({ service, subset }) =>
        this.#compose(service, { ...override, ...(subset !== undefined && { subset }) })
      )
      const targets = shares.map((share, index) => ({ share, dispatch: chains[index]!.dispatch }))
      return { dispatch: split(targets, stickOn, this.#deps), layers: [], shares: chains }
    }
    const service = this.#services.get(name)
    if (service === undefined) return { dispatch: (_opts, handler) => this.#refuse(name, handler), layers: [] }
    return this.#used.compose(service, { ...service.config.mesh, ...override }, this.#deps)
  }

  #refuse(name: string, handler: DispatchHandler): boolean {
    const controller: Dispatcher.DispatchController = {
      aborted: true, paused: false, reason: null, abort() {}, pause() {}, resume() {}
    } // biome-ignore format: inert
    const error = new MeshError(this.#closing === null ? 'JW_NO_SERVICE' : 'JW_MESH_CLOSED', name)
    handler.onRequestStart?.(controller, {})
    handler.onResponseError?.(controller, error)
    return true
  }

  /** Refuses new calls, lets those in flight end within `graceMs`, then closes discovery and every pool. */
  async shutdown(graceMs = 10_000): Promise<void> {
    this.#closing ??= Promise.all([...this.#services.values()].map((service) => service.close(graceMs))).then(() =>
      this.#release()
    )
    await this.#closing
  }

  /** Closes what all services share. */
  async #release(): Promise<void> {
    this.#clock.close()
    this.#exhaustion.close()
    this.#meter?.close()
    await Promise.all([this.#discovery.close(), this.#transports.close(), this.#locality.close()])
  }

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | void {
    const closed = this.shutdown()
    if (callback === undefined) return closed
    void closed.then(callback)
  }

  override destroy(): Promise<void>
  override destroy(error: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(first?: Error | null | (() => void), second?: () => void): Promise<void> | void {
    const callback = typeof first === 'function' ? first : second
    const error = typeof first === 'function' ? null : first
    // Those whose calls are ended now may call again at once.
    this.#closing ??= Promise.resolve()
    const destroyed = Promise.all([...this.#services.values()].map((service) => service.destroy(error))).then(() =>
      this.#release()
    )
    this.#closing = destroyed
    if (callback === undefined) return destroyed
    void destroyed.then(callback)
  }
}

/**
 * The mesh half on its own, for any Node program; the gateway's plugin makes its mesh here too.
 *
 * ```ts
 * const mesh = createMesh({ services: { orders: { name: 'orders', mesh, instances: ['http://127.0.0.1:9101'] } } })
 * const { body } = await mesh.request({ origin: 'http://orders.mesh', path: '/orders', method: 'GET' })
 * ```
 */
export function createMesh(config: MeshConfig, options?: MeshOptions): Mesh {
  return new Mesh(config, options).start()
}
