/**
 * One server that stands for all listening servers of the process in the Fastify instance of one configuration. Properties
 * are read from the first listening server. Event listeners, settings and `close()` belong to the facade and end with the
 * configuration.
 */
import { EventEmitter } from 'node:events'
import type { RequestListener, Server } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Listening } from '../listener-of.ts'
import { standFor } from '../listener-of.ts'

/** Server events that are passed to the configuration in use, besides 'request'; 'upgrade' only if it has a listener. */
export const forwardedEvents = [
  'clientError', 'connection', 'secureConnection', 'session', 'sessionError', 'tlsClientError',
  'drop', 'jingwei.refused', 'jingwei.certificates'
] as const // biome-ignore format: a list

/** The requests in flight of a gateway. */
interface Requests {
  readonly isEmpty: boolean
  cut(): void
}

export class Facade {
  readonly server: Server
  /** Number of open connections that this configuration has upgraded. */
  #upgraded = 0
  #waiting: (() => void)[] = []
  #abandoned = false
  #requests: Requests | null = null

  /** `listeners`: the listening servers whose events it receives. */
  constructor(listeners: readonly Listening[]) {
    const facade = Object.create(listeners[0]!.server) as Server
    standFor(facade, listeners)
    // Initialises its own listeners; by its prototype it would share those of the real server.
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

  /** Sets the requests in flight. Returns a function that must be called whenever the last one has ended. */
  watch(requests: Requests): () => void {
    this.#requests = requests
    return () => this.#resolveIfIdle()
  }

  emit(event: string, ...args: unknown[]): void {
    if (event === 'upgrade') {
      const socket = args[1] as Duplex
      this.#upgraded++
      socket.once('close', () => {
        this.#upgraded--
        this.#resolveIfIdle()
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

  /** Aborts the remaining requests. WebSockets are closed when their gateway closes. */
  abandon(): void {
    this.#abandoned = true
    this.#requests?.cut()
    this.#resolveIfIdle()
  }

  #isIdle(): boolean {
    return this.#abandoned || (this.#upgraded === 0 && this.#requests?.isEmpty !== false)
  }

  #resolveIfIdle(): void {
    if (this.#isIdle()) for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
