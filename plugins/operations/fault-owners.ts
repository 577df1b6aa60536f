import { AsyncLocalStorage } from 'node:async_hooks'

/** A request, a call or a plugin that answers for what a plugin's code throws from a timer, a socket or a promise. */
export interface FaultOwner {
  /** The plugin's name. */
  readonly plugin: string
  /** Ends what is left of the request. False: there is none, and the fault is the process's. */
  contain(error: Error): boolean
}

/** A plugin, from its start on: it answers where no request does. */
export interface PluginOwner extends FaultOwner {
  readonly owners: FaultOwners
  /** Longest time for which its hooks may keep a request, in milliseconds; 0: any. */
  readonly hookTimeoutMs: number
  /** Names of the configured routes that its hooks and interceptors are for; null: all. */
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
  /** Makes the error that stops the start, with the plugin's position in the configuration. */
  fault(message: string, cause?: unknown): Error
}

/** Async contexts of the process: services that outlive a configuration know whose code calls them. */
export class OwnerContexts {
  readonly storage = new AsyncLocalStorage<FaultOwner | null>()
  /** Without plugins, nobody looks the context up. */
  isUsed = false
}

/**
 * Knows whose code runs, by the async context: also in timers, sockets and promises that the code has made. The gateway's
 * own code, called by a plugin's, runs as nobody's. Of one configuration: while its plugins load, another one may serve.
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

  /** The plugin that is being loaded. Plugins within it begin outside its async context, but before the next one. */
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
