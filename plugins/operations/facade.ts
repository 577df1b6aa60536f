/**
 * The listening servers of the process, as the Fastify instance of one configuration sees them: as one server. What is read
 * from it is the first one's own. Listeners, settings and the end are the facade's: they go with the configuration.
 */
import { EventEmitter } from 'node:events'
import type { RequestListener, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Listening } from '../listener-of.ts'
import { standFor } from '../listener-of.ts'

/** Events of a server that the configuration in use hears, besides requests; 'upgrade' only if it listens to that. */
export const heard = [
  'clientError', 'connection', 'secureConnection', 'session', 'sessionError', 'tlsClientError',
  'drop', 'jingwei.refused', 'jingwei.certificates'
] as const // biome-ignore format: a list

/** Requests in flight of a gateway. */
interface Requests {
  readonly isEmpty: boolean
  cut(): void
}

export class Facade {
  readonly server: Server
  /** Connections that were upgraded by this configuration and are open. */
  #upgraded = 0
  #waiting: (() => void)[] = []
  #abandoned = false
  #requests: Requests | null = null

  /** `listeners`: those whose events it hears. */
  constructor(listeners: readonly Listening[]) {
    const facade = Object.create(listeners[0]!.server) as Server
    standFor(facade, listeners)
    // Own listeners: by its prototype it would have those of the real server.
    Reflect.apply(EventEmitter, facade, [])
    this.server = Object.assign(facade, {
      listen: () => {
        process.nextTick(() => facade.emit('listening'))
        return facade
      },
      close: (closed?: () => void) => {
        void this.idle().then(closed)
        return facade
      },
      closeIdleConnections: () => {},
      closeAllConnections: () => {}
    })
  }

  /** For Fastify's `serverFactory`. */
  readonly create = (handler: RequestListener): Server => this.server.on('request', handler)

  /** Takes the requests in flight. Returns what is to be called whenever the last one has ended. */
  watch(requests: Requests): () => void {
    this.#requests = requests
    return () => this.#look()
  }

  emit(event: string, ...args: unknown[]): void {
    if (event === 'upgrade') {
      const socket = args[1] as Duplex
      this.#upgraded++
      socket.once('close', () => {
        this.#upgraded--
        this.#look()
      })
    }
    this.server.emit(event, ...args)
  }

  /** Resolves when neither a request nor an upgraded connection is left. */
  async idle(): Promise<void> {
    if (this.#isIdle()) return
    await new Promise<void>((resolve) => this.#waiting.push(resolve))
  }

  get isAbandoned(): boolean {
    return this.#abandoned
  }

  /** Cuts the requests that are left. WebSockets are told to close as their gateway does. */
  abandon(): void {
    this.#abandoned = true
    this.#requests?.cut()
    this.#look()
  }

  #isIdle(): boolean {
    return this.#abandoned || (this.#upgraded === 0 && this.#requests?.isEmpty !== false)
  }

  #look(): void {
    if (this.#isIdle()) for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
