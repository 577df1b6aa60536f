import type { ServiceConfig } from '../../config/schema.ts'
import { createBalancer } from './balancing/index.ts'
import type { Call } from './call.ts'
import { MeshError } from './errors.ts'
import { RetryBudget } from './retry-budget.ts'
import { PooledEndpoint } from './transport/endpoint.ts'
import type { Instance, InstanceSpec, Snapshot, Source, SourceStatus, Surroundings } from './types.ts'

/** What the outside may know of a service. */
export interface ServiceStatus {
  readonly name: string
  readonly source: SourceStatus
  readonly instances: readonly {
    readonly id: string
    readonly origin: string
    readonly weight: number
    readonly active: number
  }[]
}

/** A service at run time: its newest snapshot, its endpoints, and what its calls count together. */
export class Service {
  readonly config: ServiceConfig
  /** Calls in flight. */
  active = 0
  readonly retryBudget = new RetryBudget()
  /** Replaced as a whole; null until discovery first answers. */
  snapshot: Snapshot | null = null
  readonly #source: Source
  readonly #around: Surroundings
  #endpoints = new Map<string, PooledEndpoint>()
  readonly #leaving = new Set<PooledEndpoint>()
  #closed = false
  #newest: Call | null = null
  #onIdle: (() => void) | null = null

  constructor(config: ServiceConfig, source: Source, around: Surroundings) {
    this.config = config
    this.#source = source
    this.#around = around
  }

  get name(): string {
    return this.config.name
  }

  /**
   * Calls in flight are a linked list, for the day they must be ended: a Set that gains and loses members all
   * the time keeps dead ones alive until the next full collection, which cost a tenth of the CPU.
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

  start(): void {
    this.#source.start((specs) => this.#publish(specs))
  }

  status(): ServiceStatus {
    return {
      name: this.name,
      source: this.#source.status(),
      instances: (this.snapshot?.instances ?? []).map(({ id, origin, weight, endpoint }) => ({
        id,
        origin,
        weight,
        active: endpoint.active
      }))
    }
  }

  /** Builds the next snapshot; an address that stays keeps its connections and counts. */
  #publish(specs: readonly InstanceSpec[]): void {
    if (this.#closed) return
    const kept = new Map<string, PooledEndpoint>()
    const instances: Instance[] = specs.map((spec) => {
      const endpoint =
        kept.get(spec.origin) ??
        this.#endpoints.get(spec.origin) ??
        new PooledEndpoint(spec.origin, this.config.mesh.connectTimeout)
      kept.set(spec.origin, endpoint)
      return { ...spec, endpoint }
    })
    const left = [...this.#endpoints.values()].filter((endpoint) => !kept.has(endpoint.origin))
    this.#endpoints = kept
    this.snapshot = { instances, balancer: createBalancer(this.config.mesh.balance, instances, this.#around.random) }
    for (const endpoint of left) this.#retire(endpoint)
    this.#around.log.info({ service: this.name, instances: instances.length, left: left.length }, 'instances changed')
  }

  #retire(endpoint: PooledEndpoint): void {
    this.#leaving.add(endpoint)
    void endpoint.close().then(() => this.#leaving.delete(endpoint))
  }

  /** Ends discovery, lets calls in flight, retries included, end within the grace, then closes every connection. */
  async close(graceMs: number): Promise<void> {
    this.#closed = true
    await Promise.all([this.#source.close(), this.#idle(graceMs)])
    await this.destroy()
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
    this.#closed = true
    // Each takes itself off the list.
    while (this.#newest !== null) this.#newest.abort(error ?? new MeshError('JW_MESH_CLOSED', this.name))
    const endpoints = [...this.#endpoints.values(), ...this.#leaving]
    await Promise.all([this.#source.close(), ...endpoints.map((endpoint) => endpoint.destroy())])
  }
}
