import type { ServiceConfig } from '../../../config/schema.ts'
import type { ServiceStatus } from '../../seam.ts'
import { eligible } from '../balancing/eligible.ts'
import { createBalancer } from '../balancing/index.ts'
import { balanceOptions } from '../balancing/policy.ts'
import { withReserve } from '../balancing/reserve.ts'
import { PooledEndpoint } from '../connect/endpoint.ts'
import type { Transport } from '../connect/index.ts'
import { InstanceHealth } from '../health/health.ts'
import type { Call, CallHost } from './call.ts'
import { MeshError } from './errors.ts'
import type { ServiceState } from './service-state.ts'
import { StateKey } from './service-state.ts'
import { originsField, statusOf } from './service-status.ts'
import { isInSubset } from './subset.ts'
import type { Balancer, Instance, InstanceSpec, Locality, MeshDeps, Snapshot, Source, SourceStatus } from './types.ts'

const transportKey = new StateKey('transport')

const nowhere: Locality = { datacenter: null, zone: null }

/** A service at run time: its newest snapshot, its endpoints, and the state that its calls share. */
export class Service implements CallHost {
  readonly config: ServiceConfig
  /** Calls in flight. */
  active = 0
  readonly transport: Transport
  /** Newest snapshot, replaced as a whole; null until the first result of discovery. */
  snapshot: Snapshot | null = null
  readonly #source: Source
  readonly #deps: MeshDeps
  #endpoints = new Map<string, PooledEndpoint>()
  readonly #draining = new Set<PooledEndpoint>()
  readonly #states: (readonly [name: string, state: ServiceState])[] = []
  /** Counts an instance that became available or unavailable; null without metrics. */
  readonly #countFlip: ((concern: string, to: string) => void) | null
  #instances: readonly Instance[] = []
  #started = false
  #refreshing = false
  #change: NodeJS.Timeout | undefined
  #onReady: (() => void) | null = null
  /** Resolves with the first result of discovery. */
  readonly ready = new Promise<void>((resolve) => {
    this.#onReady = resolve
  })
  #sourceClosed: Promise<void> | null = null
  #destroyed: Promise<void> | null = null
  #onEnd: (() => void) | null = null
  /** Resolves once the service and all its connections are closed. */
  readonly ended = new Promise<void>((resolve) => {
    this.#onEnd = resolve
  })
  #closed = false
  #newest: Call | null = null
  #onIdle: (() => void) | null = null

  constructor(config: ServiceConfig, source: Source, transport: Transport, deps: MeshDeps) {
    this.config = config
    this.#source = transport.gate(source)
    this.transport = transport
    if (transport.status() !== null) this.state(transportKey, () => ({ status: () => transport.status() }))
    this.#deps = deps
    const counter = deps.meter?.counter({
      name: 'jingwei_mesh_health_flips_total',
      help: 'Instances that became available or unavailable, by the concern that caused it.',
      labelNames: ['service', 'concern', 'to']
    })
    this.#countFlip = counter === undefined ? null : (concern, to) => counter.labels(config.name, concern, to).inc()
  }

  /**
   * Returns a concern's state for this service, which all chains share. It is created for the first chain and closed
   * with the service, which may outlive the configuration of that chain. So `create` must use `deps`, the service's
   * own, and capture nothing of the chain. `variant` distinguishes several states of one concern, such as one per
   * shadow service.
   */
  state<S extends ServiceState>(key: StateKey<S>, create: (deps: MeshDeps) => S, variant = ''): S {
    const known = key.get(this, variant)
    if (known !== undefined) return known
    const state = create(this.#deps)
    key.set(this, variant, state)
    this.attach(`${key.name} ${variant}`.trimEnd(), state)
    return state
  }

  /** Adds a state that not all chains share, such as that of one route, until `detach`. */
  attach(name: string, state: ServiceState): void {
    this.#states.push([name, state])
    if (this.#closed) state.close?.()
    else if (this.#started) this.#begin(state)
  }

  /** Removes a state of `attach`, and closes it. */
  detach(state: ServiceState): void {
    const index = this.#states.findIndex(([, each]) => each === state)
    if (index !== -1) this.#states.splice(index, 1)
    state.close?.()
  }

  #begin(state: ServiceState): void {
    state.start?.()
    if (this.snapshot !== null) state.update?.(this.snapshot.instances)
  }

  get name(): string {
    return this.config.name
  }

  /** True if the service prefers instances of the gateway's own zone and datacenter. */
  get prefersLocal(): boolean {
    return balanceOptions(this.config.mesh.balance).locality === 'prefer'
  }

  /** All discovered instances, whatever their health. */
  get instances(): readonly Instance[] {
    return this.#instances
  }

  get source(): SourceStatus {
    return this.#source.status()
  }

  /**
   * Adds a call to the list of calls in flight, which `destroy` aborts. A linked list, because a Set whose members
   * change all the time keeps removed ones alive until the next full garbage collection, which cost a tenth of the CPU.
   */
  enter(call: Call): void {
    this.active++
    call.older = this.#newest
    if (this.#newest !== null) this.#newest.newer = call
    this.#newest = call
  }

  leave(call: Call): void {
    if (call.newer !== null) call.newer.older = call.older
    else this.#newest = call.older
    if (call.older !== null) call.older.newer = call.newer
    call.newer = null
    call.older = null
    this.active--
    if (this.active === 0) this.#onIdle?.()
  }

  /** Logs an error that cannot be returned to the caller: the caller's handler threw it when the call ended. */
  report(err: Error, requestId?: string): void {
    const fields = { service: this.name, ...(requestId !== undefined && { requestId }), err }
    this.#deps.log.error(fields, `${this.name}: the handler of a call threw when the call ended`)
  }

  /** Begins discovery, once. */
  start(): void {
    if (this.#started) return
    this.#started = true
    for (const [, state] of this.#states) this.#begin(state)
    this.#source.start((specs) => this.#publish(specs))
  }

  status(): ServiceStatus {
    return statusOf(this, this.#states, this.#deps.now())
  }

  /** Builds the next snapshot; an address that stays keeps its connections and counts. */
  #publish(specs: readonly InstanceSpec[]): void {
    if (this.#closed) return
    const kept = new Map<string, PooledEndpoint>()
    this.#instances = specs.map((spec) => {
      const endpoint = kept.get(spec.origin) ?? this.#endpoints.get(spec.origin) ?? this.#endpoint(spec.origin)
      kept.set(spec.origin, endpoint)
      return { ...spec, endpoint }
    })
    const left = [...this.#endpoints.values()].filter((endpoint) => !kept.has(endpoint.origin))
    const before = this.#endpoints
    const isFirst = this.snapshot === null
    this.#endpoints = kept
    for (const [, state] of this.#states) state.update?.(this.#instances)
    this.#balance()
    for (const endpoint of left) this.#retire(endpoint)
    const added = [...kept.keys()].filter((origin) => !before.has(origin))
    const removed = left.map(({ origin }) => origin)
    const changes = { ...originsField('added', added), ...originsField('removed', removed) }
    const message =
      isFirst && specs.length === 0
        ? `${this.name} has no instances: the first result of discovery is empty`
        : `instances of ${this.name} changed`
    this.#deps.log.info({ service: this.name, instances: specs.length, ...changes }, message)
    this.#onReady?.()
  }

  #endpoint(origin: string): PooledEndpoint {
    const { now, log } = this.#deps
    const health = new InstanceHealth(now, (available, concern, reason) => {
      const to = available ? 'available' : 'unavailable'
      const fields = { service: this.name, instance: origin, concern, reason }
      log[available ? 'info' : 'warn'](fields, `instance ${origin} of ${this.name} is ${to}`)
      this.#countFlip?.(concern, to)
      this.#refresh()
    })
    // Instances of the first snapshot may have run for long, so slow start does not apply to them.
    if (this.snapshot === null) health.since -= balanceOptions(this.config.mesh.balance).slowStart ?? 0
    return new PooledEndpoint(origin, this.config.mesh, health, this.transport.to(origin))
  }

  /** Rebuilds the balancers after a change of the gateway's locality. */
  rebalance(): void {
    if (this.snapshot !== null) this.#refresh()
  }

  /** Rebuilds the balancers in a microtask, so that many changes of health at once cost one rebuild. */
  #refresh(): void {
    if (this.#refreshing || this.#closed) return
    this.#refreshing = true
    queueMicrotask(() => {
      this.#refreshing = false
      if (!this.#closed) this.#balance()
    })
  }

  /** Builds the next snapshot, with balancers over the eligible instances of the whole service and of each subset. */
  #balance(): void {
    const { subsets = {} } = this.config
    const whole = this.#balancer(this.#instances)
    const balancers: Record<string, Balancer> = { '': whole.balancer }
    let { changesInMs } = whole
    for (const [name, subset] of Object.entries(subsets)) {
      const some = this.#balancer(this.#instances.filter((each) => isInSubset(each, subset)))
      balancers[name] = some.balancer
      changesInMs = Math.min(changesInMs ?? Number.POSITIVE_INFINITY, some.changesInMs ?? Number.POSITIVE_INFINITY)
    }
    if (whole.panic !== (this.snapshot?.panic ?? false)) {
      const message = whole.panic
        ? `panic: too few instances of ${this.name} are available, so all are used`
        : `panic is over: enough instances of ${this.name} are available`
      this.#deps.log.warn({ service: this.name }, message)
    }
    this.snapshot = { instances: this.#instances, balancers, panic: whole.panic }
    clearTimeout(this.#change)
    if (changesInMs !== null && changesInMs < Number.POSITIVE_INFINITY) {
      this.#change = setTimeout(() => this.#refresh(), changesInMs).unref()
    }
  }

  #balancer(instances: readonly Instance[]): { balancer: Balancer; panic: boolean; changesInMs: number | null } {
    const options = balanceOptions(this.config.mesh.balance)
    const some = eligible(instances, options, this.#deps.locality?.() ?? nowhere, this.#deps.now())
    const balancer = createBalancer(options, some.instances, this.#deps)
    return { ...some, balancer: withReserve(balancer, some.instances, instances, this.#deps.random) }
  }

  #retire(endpoint: PooledEndpoint): void {
    this.#draining.add(endpoint)
    void endpoint.close().then(() => this.#draining.delete(endpoint))
  }

  /** Ends discovery, waits up to `graceMs` for calls in flight and their retries, then closes every connection. */
  async close(graceMs: number): Promise<void> {
    this.#stop()
    await Promise.all([this.#closeSource(), this.#idle(graceMs)])
    await this.destroy()
  }

  #stop(): void {
    this.#closed = true
    clearTimeout(this.#change)
    for (const [, state] of this.#states) state.close?.()
  }

  #idle(graceMs: number): Promise<void> | undefined {
    if (this.active === 0) return
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, graceMs)
      this.#onIdle = () => {
        clearTimeout(timer)
        resolve()
      }
    })
  }

  /** Fails the calls in flight and closes every connection. */
  async destroy(error?: Error | null): Promise<void> {
    this.#stop()
    // Each call removes itself from the list.
    while (this.#newest !== null) this.#newest.abort(error ?? new MeshError('JW_MESH_CLOSED', this.name))
    this.#destroyed ??= this.#closeAll()
    await this.#destroyed
  }

  async #closeAll(): Promise<void> {
    const endpoints = [...this.#endpoints.values(), ...this.#draining]
    await Promise.all([this.#closeSource(), ...endpoints.map((endpoint) => endpoint.destroy())])
    await this.transport.close()
    this.#onEnd?.()
  }

  #closeSource(): Promise<void> {
    this.#sourceClosed ??= this.#source.close()
    return this.#sourceClosed
  }
}
