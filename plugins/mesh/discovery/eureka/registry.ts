/** The whole registry of Eureka for all services: fetched once, and then kept up to date by its changes. */
import { asError } from '../../../thrown.ts'
import type { MeshDeps } from '../../core/types.ts'
import { backoff, pause } from '../loop.ts'
import { Shared } from '../shared.ts'
import type { Watching } from '../watched.ts'
import type { Wanted } from './applications.ts'
import { Applications } from './applications.ts'
import type { EurekaClient } from './client.ts'
import { unchanged } from './client.ts'

interface RegistryOptions {
  readonly interval: number
  readonly deltas: boolean
}

/** Longest pause after the first failure; doubled with each further one, up to the interval. */
const firstPause = 1000

export class EurekaRegistry {
  readonly #client: EurekaClient
  readonly #options: RegistryOptions
  readonly #deps: MeshDeps
  readonly #shared: Shared<Applications>
  #applications: Applications | null = null
  #failures = 0
  /** False for servers that offer no changes. */
  #hasChanges = true

  constructor(client: EurekaClient, options: RegistryOptions, deps: MeshDeps) {
    this.#client = client
    this.#options = options
    this.#deps = deps
    this.#shared = new Shared(() => {
      const abort = new AbortController()
      void this.#run(abort.signal)
      return () => abort.abort()
    })
  }

  /** Publishes the instances of a service, now and after each query. */
  follow(wanted: Wanted, watching: Watching): Promise<void> {
    return this.#shared.follow(watching, (applications) => {
      try {
        watching.publish(applications.instancesOf(wanted))
      } catch (error) {
        watching.fail(error)
      }
    })
  }

  async #run(signal: AbortSignal): Promise<void> {
    const { interval } = this.#options
    const { random } = this.#deps
    this.#applications = null
    this.#hasChanges = this.#options.deltas
    this.#client.forget()
    while (!signal.aborted) {
      let delay = interval * (0.9 + random() / 5)
      try {
        const applications = await this.#update(this.#applications, signal)
        if (signal.aborted) return
        this.#applications = applications
        this.#succeed()
        await this.#shared.set(applications)
      } catch (error) {
        if (signal.aborted) return
        this.#fail(asError(error))
        delay = backoff(this.#failures, random, Math.min(firstPause, interval), interval)
      }
      await pause(delay, signal)
    }
  }

  /** Returns the current registry: by its changes, or as a whole if these are incomplete. */
  async #update(known: Applications | null, signal: AbortSignal): Promise<Applications> {
    if (known !== null && this.#hasChanges) {
      const changes = await this.#client.changes(signal)
      if (changes === null) this.#hasChanges = false
      else if (known.apply(changes)) return known
      // The hash differs: the registry has missed a change, so that the next response must be complete.
      else this.#client.forget()
    }
    const registry = await this.#client.registry(signal)
    return registry === unchanged && known !== null ? known : new Applications(registry)
  }

  #succeed(): void {
    const { log } = this.#deps
    if (this.#failures > 0) log.info({ urls: this.#client.shown }, 'Eureka available again')
    this.#failures = 0
  }

  #fail(error: Error): void {
    this.#shared.fail(error)
    if (++this.#failures > 1) return
    const consequence =
      this.#applications === null
        ? 'services without known instances respond with 503 until then'
        : 'services keep the instances last known'
    this.#deps.log.warn({ urls: this.#client.shown, err: error }, `Eureka unavailable; ${consequence}`)
  }
}
