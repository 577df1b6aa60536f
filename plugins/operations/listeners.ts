import type { FastifyBaseLogger } from 'fastify'
import type { Config, Listen } from '../../config/schema.ts'
import type { Connections } from './connections.ts'
import type { Facade } from './facade.ts'
import { listenOn } from './listen.ts'
import type { ServerOptions } from './listener.ts'
import { Listener } from './listener.ts'

interface Protection {
  /** Returns the function that applies changed options. Rejected, with nothing changed, if they cannot be. */
  prepare(listen: Listen): Promise<() => void>
  close(): void
}

export interface ListenersOptions {
  readonly log: FastifyBaseLogger
  serverOptions(listen: Listen): ServerOptions
  /** Protects a listening server from its clients. */
  protect(server: Listener['server'], listen: Listen, log: FastifyBaseLogger): Protection
}

/** The listeners for clients. They live as long as the process; configurations know them by name. */
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

  /** Listens where the first configuration says. */
  async listen({ file, listeners }: Config): Promise<void> {
    for (const [index, listen] of listeners.entries()) await listenOn(this.all[index]!, file, listen.at, listen)
  }

  /** From now on, events are this one's. */
  serve(facade: Facade): void {
    for (const listener of this.all) listener.serve(facade)
  }

  /** Returns functions that apply the options of another configuration. Rejected, with nothing changed, if they cannot be. */
  prepare({ listeners }: Config): Promise<(() => void)[]> {
    return Promise.all(listeners.map((listen) => this.#protections.get(listen.name)!.prepare(listen)))
  }

  /** Takes no connections any more; resolves when the last one has ended. */
  async close(): Promise<void> {
    for (const { server } of this.all) this.#connections.sweep(server)
    await Promise.all(this.all.map((listener) => listener.close()))
  }

  /** Ends the timers, once all is closed. */
  end(): void {
    for (const protection of this.#protections.values()) protection.close()
  }
}
