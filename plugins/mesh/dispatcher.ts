import { Dispatcher } from 'undici'
import type { ConsulOptions, RoutePolicy, ServiceConfig } from '../../config/schema.ts'
import { Call } from './call.ts'
import type { Discovery } from './discovery/index.ts'
import { createDiscovery } from './discovery/index.ts'
import { MeshError } from './errors.ts'
import { activeCheck } from './health/active-check.ts'
import { adaptiveConcurrency } from './interceptors/adaptive-concurrency.ts'
import { attemptTimeout } from './interceptors/attempt-timeout.ts'
import { caps } from './interceptors/caps.ts'
import { circuitBreaker } from './interceptors/circuit-breaker.ts'
import { collapse } from './interceptors/collapse.ts'
import { deadline } from './interceptors/deadline.ts'
import { fallback } from './interceptors/fallback.ts'
import { fault } from './interceptors/fault.ts'
import { hashKey } from './interceptors/hash-key.ts'
import { hedge } from './interceptors/hedge.ts'
import { intentions } from './interceptors/intentions.ts'
import { mirror } from './interceptors/mirror.ts'
import { outlierDetection } from './interceptors/outlier-detection.ts'
import { rateLimit } from './interceptors/rate-limit.ts'
import { replay } from './interceptors/replay.ts'
import { retry } from './interceptors/retry.ts'
import { select } from './interceptors/select.ts'
import { split } from './interceptors/split.ts'
import { attemptTelemetry, callTelemetry } from './interceptors/telemetry.ts'
import type { Layer, LayerContext } from './layer.ts'
import { registerServiceMetrics } from './metrics.ts'
import type { ServiceStatus } from './service.ts'
import { Service } from './service.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, Interceptor, Logger, Meter } from './types.ts'

export interface MeshConfig {
  readonly services: Readonly<Record<string, ServiceConfig>>
  readonly discovery?: { readonly consul?: ConsulOptions }
}

export interface MeshOptions {
  log?: Logger
  meter?: Meter
  /** Instances from a registry of your own; the configuration then says nothing of where services are. */
  discovery?: Discovery
  now?: () => number
  random?: () => number
}

export interface UseOptions {
  /** `request`: once per call, outside the retries. `attempt`: once per attempt, its instance in `opts.origin`. */
  per: 'request' | 'attempt'
  /** Shown where the chain is listed. */
  name?: string
}

interface Named {
  name: string
  layer: Layer
}

const silent: Logger = { info() {}, warn() {}, error() {} }

/**
 * The mesh half: an undici `Dispatcher` whose origins are services, `http://orders.mesh`. A chain of
 * interceptors is composed once per service and per route policy; a call then runs through what is on, and
 * nothing asks whether it is.
 */
export class Mesh extends Dispatcher {
  readonly #services = new Map<string, Service>()
  readonly #chains = new Map<string, { own: Dispatch | null; byPolicy: WeakMap<RoutePolicy, Dispatch> }>()
  readonly #discovery: Discovery
  readonly #around: LayerContext
  readonly #used: { request: Named[]; attempt: Named[] } = { request: [], attempt: [] }
  #closing: Promise<void> | null = null

  constructor(config: MeshConfig, options: MeshOptions = {}) {
    super()
    this.#around = {
      log: options.log ?? silent,
      meter: options.meter ?? null,
      now: options.now ?? (() => performance.now()),
      random: options.random ?? Math.random,
      toService: (name) => (opts, handler) => {
        const { mesh: _ofTheRoute, ...rest } = opts
        return this.dispatch({ ...rest, origin: originOf(name) }, handler)
      }
    }
    this.#discovery = options.discovery ?? createDiscovery(config.discovery ?? {}, this.#around)
    for (const service of Object.values(config.services)) {
      this.#services.set(service.name, new Service(service, this.#discovery.source(service), this.#around))
      this.#chains.set(originOf(service.name), { own: null, byPolicy: new WeakMap() })
    }
    if (this.#around.meter !== null) registerServiceMetrics(this.#around.meter, this)
    // `compose()` calls them on a Proxy, which has no private fields.
    Object.assign(this, { close: this.close.bind(this), destroy: this.destroy.bind(this) })
  }

  /** Begins discovery; calls before the first answer fail with `JW_NO_INSTANCE`. */
  start(): this {
    for (const service of this.#services.values()) {
      // Composed now, so that what attends to a service does so before its first call.
      this.#chains.get(originOf(service.name))!.own ??= this.#compose(service.name)
      activeCheck(service, service.config.mesh, this.#around)
      service.start()
    }
    return this
  }

  /** Resolves when discovery has answered once for every service, be it that there is no instance. */
  async ready(): Promise<void> {
    await Promise.all([...this.#services.values()].map(({ ready }) => ready))
  }

  /** Adds an interceptor to the chains of all services; to be called before the first request. */
  use(interceptor: Interceptor, { per, name = interceptor.name || 'interceptor' }: UseOptions): this {
    this.#used[per].push({ name, layer: () => interceptor })
    for (const [origin] of this.#chains) this.#chains.set(origin, { own: null, byPolicy: new WeakMap() })
    return this
  }

  /**
   * The chain, outermost first. What may answer in the service's place stands outside the deadline, or could not
   * answer when that has passed; the call gives whatever is above it one stable controller; retry and hedge repeat
   * what is below them: what admits an attempt, selection, so that a retry goes elsewhere, then what concerns one
   * attempt at one instance.
   */
  #layers(): Named[] {
    return [
      { name: 'telemetry', layer: callTelemetry }, // sees all that happens
      { name: 'collapse', layer: collapse }, // who shares an answer shares its fallback
      { name: 'fallback', layer: fallback }, // also when the deadline has passed
      { name: 'deadline', layer: deadline },
      ...this.#used.request,
      { name: 'call', layer: beginCall },
      { name: 'intentions', layer: intentions }, // not even a copy goes where we may not
      { name: 'mirror', layer: mirror }, // once a call, whatever becomes of it
      { name: 'hash', layer: hashKey }, // the same for all attempts
      { name: 'replay', layer: replay }, // what retry and hedge send again
      { name: 'retry', layer: retry },
      { name: 'hedge', layer: hedge },
      { name: 'circuit-breaker', layer: circuitBreaker }, // refuses before anything waits
      { name: 'adaptive-concurrency', layer: adaptiveConcurrency },
      { name: 'caps', layer: caps },
      { name: 'rate-limit', layer: rateLimit }, // last, so that only what will be sent takes a token
      { name: 'select', layer: select },
      { name: 'attempt-telemetry', layer: attemptTelemetry },
      { name: 'outlier-detection', layer: outlierDetection },
      ...this.#used.attempt,
      { name: 'attempt-timeout', layer: attemptTimeout },
      { name: 'fault', layer: fault } // innermost: to all others a fault is the service's
    ]
  }

  /** Names of the layers in force for a service, outermost first. */
  describe(name: string, override: RoutePolicy = {}): string[] {
    const service = this.#services.get(name)
    if (service === undefined) throw new MeshError('JW_NO_SERVICE', name)
    const policy = { ...service.config.mesh, ...override }
    return this.#layers()
      .filter(({ layer }) => layer(service, policy, this.#around) !== null)
      .map((layer) => layer.name)
  }

  status(): ServiceStatus[] {
    return [...this.#services.values()].map((service) => service.status())
  }

  /** Milliseconds on the mesh's own clock, in which `status()` gives its times. */
  now(): number {
    return this.#around.now()
  }

  override dispatch(opts: DispatchOptions, handler: DispatchHandler): boolean {
    const origin = typeof opts.origin === 'string' ? opts.origin : String(opts.origin?.origin)
    const chains = this.#chains.get(origin)
    if (chains === undefined || this.#closing !== null) return this.#refuse(nameOf(origin), handler)
    const policy = opts.mesh
    let chain = policy === undefined ? chains.own : chains.byPolicy.get(policy)
    if (chain === undefined || chain === null) {
      chain = this.#compose(nameOf(origin), policy)
      if (policy === undefined) chains.own = chain
      else chains.byPolicy.set(policy, chain)
    }
    return chain(opts, handler)
  }

  #compose(name: string, { split: shares, stickOn, ...override }: RoutePolicy = {}): Dispatch {
    if (shares !== undefined) {
      const targets = shares.map((share) => {
        const { service, subset } = share
        return { share, dispatch: this.#compose(service, { ...override, ...(subset !== undefined && { subset }) }) }
      })
      return split(targets, stickOn, this.#around)
    }
    const service = this.#services.get(name)
    if (service === undefined) return (_opts, handler) => this.#refuse(name, handler)
    const policy = { ...service.config.mesh, ...override }
    // Innermost: the pool of the instance that `select` chose.
    let dispatch: Dispatch = (opts, handler) => opts.instance!.endpoint.dispatch(opts, handler)
    for (const { layer } of this.#layers().reverse()) {
      dispatch = layer(service, policy, this.#around)?.(dispatch) ?? dispatch
    }
    return dispatch
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
      this.#discovery.close()
    )
    await this.#closing
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
    const destroyed = Promise.all([...this.#services.values()].map((service) => service.destroy(error))).then(() =>
      this.#discovery.close()
    )
    this.#closing = destroyed
    if (callback === undefined) return destroyed
    void destroyed.then(callback)
  }
}

/** The virtual origin under which callers name a service. */
export function originOf(service: string): string {
  return `http://${service}.mesh`
}

function nameOf(origin: string): string {
  return /^http:\/\/(.*)\.mesh$/.exec(origin)?.[1] ?? origin
}

/** Makes the call's record, and hands undici's own timers over to the mesh's. */
const beginCall: Layer = (service, policy, { now }) => {
  const bodyTimeout = policy.idleTimeout === false ? 0 : policy.idleTimeout
  return (dispatch) => (opts, handler) => {
    const call = new Call(service, handler, now())
    return call.begin(dispatch, { ...opts, call, headersTimeout: 0, bodyTimeout })
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
