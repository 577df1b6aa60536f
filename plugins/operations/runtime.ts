/**
 * The runtime lives as long as the process: listening servers, their connections, the log and the stores. At a reload, the
 * gateway of the new configuration is built beside the one in use, and takes over by one assignment.
 */
import { stat } from 'node:fs/promises'
import { setImmediate as nextTurn } from 'node:timers/promises'
import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import type { Fault } from '../../config/faults.ts'
import { ConfigError } from '../../config/faults.ts'
import { faultAt } from '../../config/place.ts'
import type { Config } from '../../config/schema.ts'
import { Stores } from '../stores.ts'
import type { Watch } from '../watch-files.ts'
import { Connections } from './connections.ts'
import { Facade } from './facade.ts'
import type { Generation } from './generation.ts'
import { end, Retired, warm } from './generation.ts'
import type { Host, LastLoad, Outcome } from './host.ts'
import { listenOn } from './listen.ts'
import { Listener } from './listener.ts'
import type { ListenersOptions } from './listeners.ts'
import { Listeners } from './listeners.ts'
import { faultsOf, logOutcome } from './outcome.ts'
import { restartNeeded } from './restart-needed.ts'
import { watchConfig } from './watch-config.ts'

export interface RuntimeOptions extends ListenersOptions {
  load(file: string, warn: (warning: Fault) => void): Promise<Config>
  build(config: Config, options: { stores: Stores; log: FastifyBaseLogger; host: Host }): FastifyInstance
}

export class Runtime {
  readonly log: FastifyBaseLogger
  readonly admin: Listener | null
  readonly connections = new Connections()
  readonly #options: RuntimeOptions
  readonly #stores = new Stores()
  readonly #retired: Retired
  readonly #listeners: Listeners
  #current: Generation | null = null
  /** The gateway that is being built for a reload; null if there is none. */
  #next: { gateway: FastifyInstance; fail: (error: Error) => void } | null = null
  #config: Config
  /** Configuration of a reload in progress. Its metric series must stay, since the new gateway is bound to them. */
  #coming: Config | null = null
  #lastLoad: LastLoad
  #wasReady = false
  #reloading: Promise<unknown> = Promise.resolve()
  /** A queued reload that has not read the file yet; further requests for a reload join it. */
  #waiting: Promise<Outcome> | null = null
  #watch: Watch | null = null
  #closing: Promise<void> | null = null
  /** Aborted when the runtime begins to close. */
  readonly #stop = new AbortController()
  readonly #ended = Promise.withResolvers<void>()

  constructor(config: Config, options: RuntimeOptions) {
    this.log = options.log
    this.#config = config
    this.#lastLoad = { success: true, cause: 'start', at: new Date(), succeededAt: new Date(), faults: [] }
    this.#options = options
    this.#retired = new Retired(options.log, ({ config }) => this.#forget(config))
    this.#listeners = new Listeners(config, this.connections, options)
    this.admin = config.admin === false ? null : new Listener('admin', {})
  }

  /** The configuration in use. */
  get config(): Config {
    return this.#config
  }

  /** The listeners for clients, in the order of the first configuration. */
  get listeners(): readonly Listener[] {
    return this.#listeners.all
  }

  /** Resolves when the runtime has closed. */
  get ended(): Promise<void> {
    return this.#ended.promise
  }

  /** The gateway in use; null before the start. */
  get gateway(): FastifyInstance | null {
    return this.#current?.gateway ?? null
  }

  /** Finds the owner of the running code. Code of plugins that are loading may run outside their async context. */
  get faultOwners() {
    const next = this.#next?.gateway
    const loading = next?.hasDecorator('faultOwners') ? next.faultOwners : null
    return loading?.current ? loading : this.gateway?.faultOwners
  }

  /** Builds the first gateway and starts to listen. */
  async start(): Promise<void> {
    const generation = await this.#build(this.#config)
    const { file, admin } = this.#config
    this.#use(generation)
    if (admin !== false) await listenOn(this.admin!, file, '/admin', admin)
    await this.#listeners.listen(this.#config)
    await runListenHooks(generation.gateway)
    this.#watchFile()
  }

  /** Builds the gateway of a configuration. If that fails, everything that it started is closed. */
  async #build(config: Config): Promise<Generation> {
    const edge = new Facade(this.listeners)
    const admin = this.admin?.facade() ?? null
    const { promise: failed, reject: fail } = Promise.withResolvers<never>()
    failed.catch(() => {})
    const host: Host = {
      edge,
      admin,
      config: () => this.#config,
      lastLoad: () => this.#lastLoad,
      wasReady: () => this.#wasReady,
      reload: (cause) => this.reload(cause),
      containStray: (plugin, error) => this.#containStray(gateway, plugin, error)
    }
    const gateway = this.#options.build(config, { stores: this.#stores, log: this.log, host })
    this.#next = { gateway, fail }
    try {
      await Promise.race([gateway.ready().then(() => gateway.admin?.ready()), failed])
    } catch (error) {
      await end({ gateway, config }, this.log)
      throw error
    } finally {
      this.#next = null
    }
    const { inFlight } = gateway
    inFlight.onNone = edge.watch(inFlight)
    return { config, gateway, edge }
  }

  /** Puts a gateway into use: it gets all requests from now on. */
  #use(generation: Generation): void {
    const { gateway, config } = generation
    const { edge, admin } = gateway.host!
    this.#current = generation
    this.#config = config
    const inbound = gateway.hasDecorator('inbound') ? gateway.inbound : null
    const setReady = () => {
      this.#wasReady = true
    }
    // Rejects if the configuration is replaced before.
    Promise.all([gateway.mesh.ready({ timeout: false }), inbound?.ready()]).then(setReady, () => {})
    this.#listeners.serve(edge, inbound)
    if (admin !== null) this.admin!.serve(admin)
  }

  /** Reads the file again and applies it. Never rejects. Calls share a queued reload that has not started yet. */
  reload(cause: string): Promise<Outcome> {
    this.#waiting ??= this.#reloading.then(() => {
      this.#waiting = null
      return this.#reload(cause)
    })
    this.#reloading = this.#waiting
    return this.#waiting
  }

  async #reload(cause: string): Promise<Outcome> {
    const begunMs = performance.now()
    const { file } = this.#config
    const warnings: Fault[] = []
    let faults: readonly Fault[] = []
    let waitingFor: string[] = []
    let thrown: unknown
    try {
      await refusePipe(file)
      const config = await this.#options.load(file, (warning) => warnings.push(warning))
      this.#assertPossible(config)
      const changes = await this.#listeners.prepare(config)
      this.#coming = config
      await nextTurn()
      const next = await this.#build(config)
      await nextTurn()
      try {
        waitingFor = await warm(next, this.#current!, this.#stop.signal)
        if (this.#closing !== null) throw stopping()
      } catch (error) {
        await end(next, this.log)
        throw error
      }
      const before = this.#current!
      this.#use(next)
      for (const apply of changes) apply()
      this.#retired.add(before)
      // The new configuration serves already, so a failing hook is only logged.
      await runListenHooks(next.gateway, (address) => `configuration ${config.hash} serves ${address}`).catch((err) =>
        this.log.error({ err }, 'onListen hooks of the new configuration failed')
      )
      this.#watchFile()
    } catch (error) {
      thrown = error
      faults = faultsOf(error, file)
    }
    const refused = faults.length > 0 && this.#coming
    this.#coming = null
    if (refused) this.#forget(refused)
    const applied = faults.length === 0
    const at = new Date()
    this.#lastLoad = { success: applied, cause, at, succeededAt: applied ? at : this.#lastLoad.succeededAt, faults }
    const { hash } = this.#config
    const durationMs = Math.round(performance.now() - begunMs)
    const outcome = { applied, hash, faults, warnings, waitingFor, durationMs }
    logOutcome(this.log, this.#config, cause, outcome, thrown)
    return outcome
  }

  #assertPossible(config: Config): void {
    if (this.#closing !== null || this.connections.isDraining) throw stopping()
    const { file } = config
    const message = () => 'takes effect only after a restart; nothing was applied'
    const faults = restartNeeded(this.#config, config).flatMap((key) => faultAt(file, key, message, null).faults)
    if (faults.length > 0) throw new ConfigError(file, faults)
  }

  /** Contains errors of plugins whose configuration is not in use: while one is being built, its reload fails. */
  #containStray(gateway: FastifyInstance, plugin: string, err: Error): boolean {
    if (this.#current === null || gateway === this.#current.gateway) return false
    this.log.error({ plugin, err }, `plugin ${plugin} of a configuration that is not in use failed: ${err.message}`)
    if (this.#next?.gateway === gateway) this.#next.fail(err)
    return true
  }

  /** Removes the metric series of routes and services that only this configuration had. */
  #forget(config: Config): void {
    const gateway = this.gateway
    if (gateway === null || !gateway.hasDecorator('meter')) return
    const retired = Array.from(this.#retired.generations, (each) => each.config)
    const kept = [this.#config, ...(this.#coming === null ? [] : [this.#coming]), ...retired]
    const routes = new Set(kept.flatMap((each) => each.routes.map(({ name }) => name)))
    const services = new Set(kept.flatMap((each) => Object.keys(each.services)))
    gateway.meter.forget({
      route: config.routes.map(({ name }) => name).filter((name) => !routes.has(name)),
      service: Object.keys(config.services).filter((name) => !services.has(name))
    })
  }

  #watchFile(): void {
    this.#watch?.close()
    this.#watch = this.#config.watch
      ? watchConfig(this.#config, this.log, async () => void (await this.reload('file changed')))
      : null
  }

  drain(): Promise<void> {
    return this.connections.drain(this.#config.listen.drain.delay)
  }

  abortClients(): Promise<void> {
    return this.connections.abortAll()
  }

  /** Waits for the requests in flight and closes everything. Rejects at the end if a plugin failed to close. */
  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    this.#stop.abort()
    this.#next?.fail(stopping())
    this.#watch?.close()
    this.connections.disableKeepAlive()
    // `allSettled`: a plugin that fails to close must not abort the last requests of replaced configurations.
    const closed = await Promise.allSettled([this.gateway?.close(), this.#listeners.close(), this.#retired.close()])
    this.#listeners.end()
    this.admin?.server.closeAllConnections()
    await this.admin?.close()
    await this.#reloading
    this.#ended.resolve()
    for (const each of closed) if (each.status === 'rejected') throw each.reason
  }
}

/** Runs the `onListen` hooks: for Fastify, the facade is a server that starts to listen. */
async function runListenHooks(gateway: FastifyInstance, listenTextResolver?: (address: string) => string) {
  await gateway.listen({ host: '0.0.0.0', port: 0, ...(listenTextResolver && { listenTextResolver }) })
}

/** Rejects a pipe, since reading one would block the event loop. Other faults of the file are reported by the loader. */
async function refusePipe(file: string): Promise<void> {
  const stats = await stat(file).catch(() => null)
  if (stats === null || stats.isFile() || stats.isDirectory()) return
  throw new Error('not a regular file, so it cannot be reloaded')
}

const stopping = () => new Error('the gateway is stopping')
