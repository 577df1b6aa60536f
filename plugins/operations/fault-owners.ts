import { AsyncLocalStorage } from 'node:async_hooks'

/** A request, a call or a plugin to which errors are attributed that a plugin's code throws in timers, sockets or promises. */
export interface FaultOwner {
  /** The plugin's name. */
  readonly plugin: string
  /** Fails the request to which the error belongs. Returns false if there is none: then the error ends the process. */
  contain(error: Error): boolean
}

/** A plugin as an owner: errors that belong to no request are attributed to it. */
export interface PluginOwner extends FaultOwner {
  readonly owners: FaultOwners
  /** Time limit for each of its hooks on a request, in milliseconds; 0: none. */
  readonly hookTimeoutMs: number
  /** Names of the configured routes on which its hooks and interceptors run; null: all. */
  readonly routes: readonly string[] | null
  /** True once the plugin has added interceptors to the mesh. */
  intercepts: boolean
  /** Called for each interceptor that the plugin adds. */
  noteInterceptor(): void
  /** True if the top-level `edge` applies to the routes that it adds. */
  readonly guarded: boolean
  /** Facts that it provides where its hooks run. */
  readonly provides: readonly 'consumer'[]
  /** Position of its hooks among the edge's concerns; null without one. */
  readonly order: { readonly before?: string; readonly after?: string } | null
  /** Creates the error that stops the start, with the plugin's position in the file. */
  fault(message: string, cause?: unknown): Error
}

/** Async contexts of the process. They outlive a configuration, as do the services that attribute errors by them. */
export class OwnerContexts {
  readonly storage = new AsyncLocalStorage<FaultOwner | null>()
  /** False while there are no plugins, so that the context is not looked up. */
  isUsed = false
}

/**
 * Finds the owner of the running code by its async context, also in timers, sockets and promises that the code has created.
 * Gateway code that is called by a plugin has no owner. One object per configuration: while its plugins load, another
 * configuration may serve.
 */
export class FaultOwners {
  readonly #contexts: OwnerContexts
  #loading: PluginOwner | null = null

  constructor(contexts: OwnerContexts) {
    this.#contexts = contexts
  }

  get current(): FaultOwner | null {
    const { isUsed, storage } = this.#contexts
    return isUsed ? (storage.getStore() ?? this.#loading) : null
  }

  run<T>(owner: FaultOwner | null, code: () => T): T {
    this.#contexts.isUsed = true
    return this.#contexts.storage.run(owner, code)
  }

  /** The plugin that is being loaded. Plugins that it registers start outside its async context, but before the next plugin. */
  get loading(): PluginOwner | null {
    return this.#loading
  }

  async load(owner: PluginOwner, code: () => PromiseLike<unknown>): Promise<void> {
    this.#loading = owner
    try {
      await this.run(owner, code)
    } finally {
      this.#loading = null
    }
  }
}
