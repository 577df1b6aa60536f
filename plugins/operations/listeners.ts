import type { FastifyBaseLogger } from 'fastify'
import type { Config, Listen } from '../../config/schema.ts'
import type { Inbound, InboundListeners } from '../seam-inbound.ts'
import type { Connections } from './connections.ts'
import type { Facade } from './facade.ts'
import { listenOn } from './listen.ts'
import type { ServerOptions } from './listener.ts'
import { Listener } from './listener.ts'

interface Protection {
  /** Resolves to a function that applies changed options. Rejects, with nothing changed, if they cannot be applied. */
  prepare(listen: Listen): Promise<() => void>
  /** Sets the service of the mesh as which a listener with `connect` accepts calls. */
  acceptAs(inbound: Inbound | null): void
  close(): void
}

export interface ListenersOptions {
  readonly log: FastifyBaseLogger
  serverOptions(listen: Listen): ServerOptions
  /** Protects a listening server from its clients. */
  protect(server: Listener['server'], listen: Listen, log: FastifyBaseLogger): Protection
}

/** The listeners for clients. They live as long as the process; configurations refer to them by name. */
export class Listeners {
  /** In the order of the first configuration. */
  readonly all: readonly Listener[]
  readonly #protections = new Map<string, Protection>()
  readonly #connections: Connections

  constructor({ listeners }: Config, connections: Connections, { log, serverOptions, protect }: ListenersOptions) {
    this.#connections = connections
    this.all = listeners.map((listen) => {
      const listener = new Listener(listen.name, serverOptions(listen), listeners.length > 1)
      connections.track(listener.server)
      this.#protections.set(listen.name, protect(listener.server, listen, log))
      return listener
    })
  }

  /** Listens on the addresses of the first configuration. */
  async listen({ file, listeners }: Config): Promise<void> {
    for (const [index, listen] of listeners.entries()) await listenOn(this.all[index]!, file, listen.at, listen)
  }

  /** Makes a facade receive all events from now on. `inbound`: the listeners that services reach through the mesh. */
  serve(facade: Facade, inbound: InboundListeners | null): void {
    for (const listener of this.all) {
      listener.serve(facade)
      this.#protections.get(listener.name)!.acceptAs(inbound?.of(listener.name) ?? null)
    }
  }

  /** Resolves to functions that apply another configuration's options. Rejects, with nothing changed, if they cannot be applied. */
  prepare({ listeners }: Config): Promise<(() => void)[]> {
    return Promise.all(listeners.map((listen) => this.#protections.get(listen.name)!.prepare(listen)))
  }

  /** Stops accepting connections; resolves when the last one has closed. */
  async close(): Promise<void> {
    for (const { server } of this.all) this.#connections.sweep(server)
    await Promise.all(this.all.map((listener) => listener.close()))
  }

  /** Stops the timers; called after `close`. */
  end(): void {
    for (const protection of this.#protections.values()) protection.close()
  }
}
