import { AsyncResource } from 'node:async_hooks'
import type { DiscoveryOptions, RouteConfig, RoutePolicy, ServiceConfig } from '../../config/schema.ts'
import type { Meter } from '../meter.ts'
import { OwnMeter } from '../meter.ts'
import type { DiscoveryStatus, Explanation, ServiceCalls, ServiceStatus } from '../seam.ts'
import type { Claims, OpenClaims } from '../stores.ts'
import { Stores } from '../stores.ts'
import type { Steps } from '../time-slices.ts'
import { atOnce, inSlices } from '../time-slices.ts'
import { currentHandler, failCall } from '../undici.ts'
import { Chains } from './chains.ts'
import type { MeshConcern } from './concern.ts'
import { MeshError } from './core/errors.ts'
import type { LayerContext } from './core/layer.ts'
import { nameOf, originOf } from './core/origin.ts'
import { routeStates } from './core/route-states.ts'
import type { Service } from './core/service.ts'
import { discoveryOf } from './core/service-status.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, FaultOwners, Interceptor, Logger } from './core/types.ts'
import { MeshDispatcher } from './dispatcher.ts'
import { explain } from './explain.ts'
import { isCreationObserved } from './http/diagnostics.ts'
import type { Chain, Order, UseOptions } from './interceptors.ts'
import { Interceptors } from './interceptors.ts'
import type { ReadyOptions } from './ready.ts'
import { allReady } from './ready.ts'
import type { UpstreamOptions } from './upstreams.ts'
import { Upstreams } from './upstreams.ts'

export interface MeshConfig {
  readonly services: Readonly<Record<string, ServiceConfig>>
  /** Configured routes: interceptors may name them, and their chains are composed at the start. */
  readonly routes?: readonly Pick<RouteConfig, 'name' | 'targets'>[]
  readonly discovery?: DiscoveryOptions
}

export interface MeshOptions extends Partial<Omit<UpstreamOptions, 'meter'>> {
  /** Contains errors that interceptors throw from timers and sockets of their own. */
  owners?: FaultOwners | null
  meter?: Meter
  /** Request headers with a new value for each request, such as a request id; ignored when requests are compared. */
  perRequestHeaders?: readonly string[]
  /** Store of the services, from which the mesh of the next configuration takes the unchanged ones. Default: none. */
  claims?: Claims
  /** Key of `sources`: without it they are not compared. */
  sourcesKey?: readonly string[]
  /** Key of the plugins that add interceptors: stored responses are not shared between different keys. */
  pluginsKey?: string
  spanRecorder?: LayerContext['spanRecorder']
}

const silent: Logger = { info() {}, warn() {}, error() {} }

/** Grace for calls in flight when no configuration claims their service any longer. */
const endMs = 5000

/** Defined outside the constructor: a closure there would keep the first mesh in memory through the stores. */
const closeUpstreams = (upstreams: Upstreams) => upstreams.close()

/**
 * The mesh half: an undici `Dispatcher` whose origins are services, `http://orders.mesh`. A chain of interceptors is
 * composed once per service and route policy from the concerns that are enabled, so a call checks no switches. A mesh
 * belongs to one configuration; its services may outlive it.
 */
export class Mesh extends MeshDispatcher implements ServiceCalls {
  /** Shared dependencies of its services. */
  readonly upstreams: Upstreams
  readonly #services = new Map<string, Service>()
  readonly #chains: Chains
  readonly #routes: NonNullable<MeshConfig['routes']>
  readonly #context: Omit<LayerContext, 'routeState'>
  readonly #meter: OwnMeter | null
  readonly #used: Interceptors
  /** Claims of a mesh without `MeshOptions.claims`; null if the services belong to a store outside. */
  readonly #own: OpenClaims | null
  #closing: Promise<void> | null = null
  /** Aborted when the mesh begins to close. */
  readonly #closed = new AbortController()
  /** A request has been dispatched: chains can no longer be changed. */
  #inUse = false

  /** `prepare` claims the services. */
  constructor(config: MeshConfig, options: MeshOptions = {}, prepare: (steps: Steps<void>) => void = atOnce) {
    super()
    const { log = silent, meter = null, owners = null, perRequestHeaders = [], pluginsKey = '', sourcesKey } = options
    this.#meter = meter && new OwnMeter(meter)
    this.#routes = config.routes ?? []
    this.#used = new Interceptors(owners, config)
    this.#own = options.claims === undefined ? new Stores().open(log) : null
    const claims = options.claims ?? this.#own!
    const { discovery = {} } = config
    const registries = sourcesKey === undefined ? discovery : { discovery, sourcesKey }
    this.upstreams = claims.claim(
      'jingwei.upstreams',
      registries,
      () => new Upstreams(discovery, { ...options, log, meter }),
      closeUpstreams
    )
    const { deps } = this.upstreams
    this.#context = {
      ...deps,
      log,
      owners,
      spanRecorder: options.spanRecorder ?? null,
      meter: this.#meter,
      perRequestHeaders,
      pluginsKey: () => (this.#used.isEmpty ? '' : pluginsKey),
      repeats: () => this.#used.repeats,
      toService: (name) => (opts, handler) => {
        const { mesh: _ofTheRoute, ...rest } = opts
        return this.dispatch({ ...rest, origin: originOf(name) }, handler)
      }
    }
    const refuse = this.#refuse.bind(this)
    this.#chains = new Chains({
      services: this.#services,
      used: this.#used,
      context: this.#context,
      routeStates: routeStates(claims, registries, deps),
      routeOf: new Map(this.#routes.flatMap(({ name, targets }) => targets.map(({ mesh }) => [mesh, name]))),
      refuse
    })
    prepare(this.#claimServices(config, registries, claims))
  }

  /** Makes a mesh in slices of time. */
  static async create(config: MeshConfig, options: MeshOptions): Promise<Mesh> {
    const claimed: Promise<void>[] = []
    const mesh = new Mesh(config, options, (steps) => void claimed.push(inSlices(steps)))
    await Promise.all(claimed)
    return mesh
  }

  /** Claims the configured services: a running one if its configuration is unchanged. The kinds are names for the log. */
  *#claimServices({ services }: MeshConfig, registries: object, claims: Claims): Steps<void> {
    const { upstreams } = this
    for (const config of Object.values(services)) {
      yield
      const service = claims.claim(
        `jingwei.service ${config.name}`,
        { discovery: registries, config },
        () => upstreams.add(config),
        (service) => upstreams.end(service, endMs)
      )
      this.#services.set(config.name, service)
      this.#chains.addService(config.name)
    }
  }

  /**
   * Begins discovery; calls before its first result fail with `JW_NO_INSTANCE`. With `attend: false` no active health
   * checks are made, for commands that only inspect a configuration.
   */
  start({ attend = true } = {}): this {
    atOnce(this.#start(attend))
    return this
  }

  /** Does the same as `start`, in slices of time. */
  async startInSlices(): Promise<void> {
    await inSlices(this.#start(true))
  }

  *#start(attend: boolean): Steps<void> {
    if (attend) {
      // Compose now: a layer may start timers for its service, which must run before the first call.
      for (const name of this.#services.keys()) {
        yield
        const { failure } = this.#chains.of(name)
        if (failure !== undefined) throw failure
      }
      for (const { service, mesh } of this.#routes.flatMap(({ targets }) => targets)) {
        yield
        if (this.#services.has(service)) this.#chains.of(service, mesh)
      }
    }
    yield* this.upstreams.start([...this.#services.values()], attend)
  }

  /**
   * Resolves when discovery has a first result for every service, even an empty one. Rejects with `JW_NOT_READY`
   * after the timeout (10 s).
   */
  async ready(options: ReadyOptions = {}): Promise<void> {
    await allReady([...this.#services.values()], options, this.#closed.signal)
  }

  /** Adds an interceptor to the chains that it is for. Throws once the mesh has had a request: it ran without the interceptor. */
  use(interceptor: Interceptor, options: UseOptions): this {
    this.#used.add(interceptor, options, this.#inUse)
    this.#chains.reset()
    return this
  }

  /** Adds a plugin's concern, before or after another one. Throws as `use` does, and for an unknown name. */
  add(concern: MeshConcern, order: Order = {}): this {
    this.#used.addConcern(concern, order, this.#inUse)
    this.#chains.reset()
    return this
  }

  /** Returns the names of the enabled layers for a service, route and share of a split, outermost first. */
  describe(name: string, policy: RoutePolicy = {}, route = '', share = 0): string[] {
    return this.layers(name, policy, route, share).map(({ name }) => name)
  }

  /** Returns the same layers, with texts of those that have one. */
  layers(service: string, policy: RoutePolicy, route = '', share = 0): Chain['layers'] {
    this.service(service)
    const chain = this.#chains.of(service, Object.keys(policy).length === 0 ? undefined : policy)
    const { layers } = chain.shares?.[share] ?? chain
    return layers.filter(({ routes }) => routes?.has(route) !== false)
  }

  /** Throws `JW_NO_SERVICE`. */
  service(name: string): Service {
    const service = this.#services.get(name)
    if (service === undefined) throw new MeshError('JW_NO_SERVICE', name)
    return service
  }

  /** Explains which chain and instances a call under a route's policy would use; sends nothing. */
  explain(name: string, policy: RoutePolicy, opts: DispatchOptions): Explanation[] {
    return explain(this, name, policy, opts)
  }

  status(): ServiceStatus[] {
    return [...this.#services.values()].map((service) => service.status())
  }

  /** Returns the state of discovery for each service. Its cost does not grow with the number of instances. */
  discovery(): DiscoveryStatus[] {
    const nowMs = this.#context.now()
    return [...this.#services.values()].map((service) => discoveryOf(service, nowMs))
  }

  override dispatch(opts: DispatchOptions, given: DispatchHandler): boolean {
    // Handlers of undici 7, which is that of Node 24's `fetch`, have other methods.
    const handler = given.onRequestStart === undefined ? currentHandler(given) : given
    const origin = typeof opts.origin === 'string' ? opts.origin : String(opts.origin?.origin)
    const chains = this.#chains.byOrigin.get(origin)
    if (chains === undefined || this.#closing !== null) return this.#refuse(nameOf(origin), handler)
    this.#inUse = true
    const policy = opts.mesh
    const known = policy === undefined ? chains.own : chains.byPolicy.get(policy)
    const { dispatch: chain } = known ?? this.#chains.of(nameOf(origin), policy)
    const { owners } = this.#context
    if (!owners?.current) return this.#enter(chain, opts, handler)
    // The caller is a plugin: timers and sockets of this call must not be attributed to it.
    return owners.run(null, () => this.#enter(chain, opts, handler))
  }

  #enter(chain: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    const variant = this.#used.variantOf(opts)
    const isPlain = this.#used.isEmpty && !isCreationObserved()
    if (variant === undefined && (opts.asyncContext !== undefined || isPlain)) return chain(opts, handler)
    // Events that the call waits for, such as a new connection or the end of another call, occur in other async
    // contexts.
    const { asyncContext = new AsyncResource('jingwei.call') } = opts
    return chain({ ...opts, asyncContext, variant }, handler)
  }

  #refuse(name: string, handler: DispatchHandler): boolean {
    failCall(handler, this.#closing === null ? this.unknownService(name) : new MeshError('JW_MESH_CLOSED', name))
    return true
  }

  /** Returns the error for a call to a service that is not configured. */
  protected unknownService(name: string): MeshError {
    return new MeshError('JW_NO_SERVICE', name)
  }

  /**
   * Refuses new calls. Calls in flight have `graceMs` to end; then discovery and every pool close, unless the services
   * belong to a store outside, which closes them.
   */
  override async shutdown(graceMs = 10_000): Promise<void> {
    this.#closing ??= this.#end((service) => this.upstreams.end(service, graceMs))
    await this.#closing
  }

  protected override abort(error: Error | null): Promise<void> {
    // Set first: callers whose calls are aborted now may call again at once.
    this.#closing ??= Promise.resolve()
    this.#closing = this.#end((service) => this.upstreams.destroy(service, error))
    return this.#closing
  }

  async #end(endService: (service: Service) => Promise<void>): Promise<void> {
    this.#closed.abort(new MeshError('JW_MESH_CLOSED', [...this.#services.keys()].join(', ')))
    if (this.#own !== null) {
      await Promise.all([...this.#services.values()].map(endService))
      await this.#own.release()
    }
    this.#meter?.close()
  }
}

/** `fastify.mesh`: what both halves and operations use, and what plugins use of the mesh. */
export type FastifyMesh = ServiceCalls & Pick<Mesh, 'use' | 'add' | 'fetch'>
