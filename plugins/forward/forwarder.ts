import type { Dispatcher as UndiciDispatcher } from 'undici'
import type { RoutePolicy, ServiceConfig } from '../../config/schema.ts'
import type { Meter } from '../meter.ts'
import type { Explanation, ServiceCalls } from '../seam.ts'
import type { SpanRecorder } from '../spans.ts'
import type { Claims } from '../stores.ts'
import { Dispatcher, failCall } from '../undici.ts'
import { ForwardError } from './errors.ts'
import { metricsOf } from './metrics.ts'
import { ForwardedService, forwardedConfig } from './service.ts'

type DispatchOptions = UndiciDispatcher.DispatchOptions

/** Grace for calls in flight when no configuration claims their service any longer. */
const endMs = 5000

/** Runs code on behalf of no plugin. */
interface Owners {
  readonly current: unknown
  run<T>(owner: null, code: () => T): T
}

interface Deps {
  /** Store of the services, from which the next configuration takes the unchanged ones. */
  readonly claims: Claims
  readonly meter: Meter | null
  readonly owners: Owners | null
  /** Takes the spans of calls; without it, none are made. */
  readonly spanRecorder: SpanRecorder | null
  /** Monotonic clock, in milliseconds. */
  readonly now: () => number
}

/**
 * Calls services without the mesh: an undici `Dispatcher` whose origins are services, `http://orders.mesh`, and that
 * forwards each call to a sidecar or a fixed address. It does not retry, balance by load or check health. Its methods for
 * operations are those of the mesh.
 */
export class Forwarder extends Dispatcher implements ServiceCalls {
  readonly #services = new Map<string, ForwardedService>()
  readonly #byOrigin = new Map<string, ForwardedService>()
  readonly #owners: Owners | null
  readonly #spanRecorder: SpanRecorder | null
  #isClosing = false

  constructor(services: Readonly<Record<string, ServiceConfig>>, { claims, meter, owners, spanRecorder, now }: Deps) {
    super()
    this.#owners = owners
    this.#spanRecorder = spanRecorder
    for (const config of Object.values(services)) {
      const forwarded = forwardedConfig(config)
      const service = claims.claim(
        `jingwei.forwarded ${config.name}`,
        forwarded,
        () => new ForwardedService(forwarded, metricsOf(config.name, meter), now),
        (unclaimed) => unclaimed.end(endMs)
      )
      this.#services.set(config.name, service)
      this.#byOrigin.set(`http://${config.name}.mesh`, service)
    }
  }

  override dispatch(opts: DispatchOptions, handler: UndiciDispatcher.DispatchHandler): boolean {
    const origin = typeof opts.origin === 'string' ? opts.origin : String(opts.origin?.origin)
    const service = this.#byOrigin.get(origin)
    if (service === undefined || this.#isClosing) {
      const name = origin.replace(/^http:\/\/(.*)\.mesh$/, '$1')
      failCall(handler, new ForwardError(this.#isClosing ? 'JW_MESH_CLOSED' : 'JW_NO_SERVICE', name))
      return true
    }
    // If the caller is a plugin: sockets of this call must not be attributed to it.
    if (this.#owners?.current) return this.#owners.run(null, () => service.dispatch(opts, handler, this.#spanRecorder))
    return service.dispatch(opts, handler, this.#spanRecorder)
  }

  /** Throws: interceptors are of the mesh. */
  use(): never {
    throw new Error('fastify.mesh.use() needs the mesh, but the configuration has "mesh: false"')
  }

  /** Throws: concerns of plugins are of the mesh. */
  add(): never {
    throw new Error('a mesh concern needs the mesh, but the configuration has "mesh: false"')
  }

  /** Throws: it is of the mesh, for any version of Node's `fetch`. */
  fetch(): never {
    throw new Error(
      'fastify.mesh.fetch() needs the mesh, but the configuration has "mesh: false": use fastify.mesh.request()'
    )
  }

  start(): this {
    return this
  }

  /** Resolves at once: addresses are fixed. */
  async ready(): Promise<void> {}

  /** Throws `JW_NO_SERVICE`. */
  service(name: string): ForwardedService {
    const service = this.#services.get(name)
    if (service === undefined) throw new ForwardError('JW_NO_SERVICE', name)
    return service
  }

  /** Returns the layers that a call passes: the agent alone. */
  describe(_service: string): string[] {
    return ['agent']
  }

  explain(name: string, _policy: RoutePolicy, _opts: DispatchOptions): Explanation[] {
    const service = this.service(name)
    const [chain, basePath, status] = [this.describe(name), service.config.basePath || null, service.status()]
    return [{ service: name, subset: null, share: null, chain, decisions: [], basePath, hashed: null, status }]
  }

  status() {
    return [...this.#services.values()].map((service) => service.status())
  }

  discovery() {
    return [...this.#services.values()].map(({ config, source }) => ({
      name: config.name,
      source,
      ageMs: 0,
      instances: config.origins.length
    }))
  }

  /** Refuses new calls. The services belong to the store, which ends them. */
  async shutdown(): Promise<void> {
    this.#isClosing = true
  }

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | void {
    this.#isClosing = true
    if (callback === undefined) return Promise.resolve()
    callback()
  }

  override destroy(...given: unknown[]): Promise<void> {
    this.#isClosing = true
    const callback = given.findLast((each) => typeof each === 'function')
    callback?.()
    return Promise.resolve()
  }
}
