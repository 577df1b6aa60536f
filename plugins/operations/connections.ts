import type { ServerResponse } from 'node:http'
import type { Server, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** A socket with Node's reference to the current response. A set of responses of our own would cost garbage collection. */
interface Connection extends Socket {
  _httpMessage?: ServerResponse | null
}

/** Interval at which a closing server closes connections that have become idle. */
const sweepMs = 50

const CONNECTIONS = Symbol('jingwei.connections')

/** Returns the connections of a server and starts to track them. A facade of the server has the same object. */
export function connectionsOf(server: Server): Connections {
  const known = Reflect.get(server, CONNECTIONS) as Connections | undefined
  if (known !== undefined) return known
  const connections = new Connections()
  connections.track(server)
  return connections
}

/** Client connections of one or more servers, and their graceful shutdown. They outlive a configuration. */
export class Connections {
  readonly #open = new Set<Connection>()
  /** Connections without TLS. */
  readonly #plain = new WeakSet<Connection>()
  #draining: Promise<void> | null = null
  #keepAliveDisabled = false
  #isAborting = false

  track(server: Server): void {
    const isPlain = !('setSecureContext' in server)
    const add = (socket: Connection) => {
      this.#open.add(socket)
      if (isPlain) this.#plain.add(socket)
      socket.once('close', () => this.#open.delete(socket))
    }
    server.on('connection', add).on('secureConnection', add)
    Object.assign(server, { [CONNECTIONS]: this })
  }

  get isDraining(): boolean {
    return this.#draining !== null
  }

  /** True if exchanges that end now were aborted by the shutdown. */
  get isAborting(): boolean {
    return this.#isAborting
  }

  /** Starts draining; resolves after the delay in which requests are still accepted. */
  drain(delayMs: number): Promise<void> {
    if (this.#draining === null) this.disableKeepAlive()
    this.#draining ??= sleep(delayMs)
    return this.#draining
  }

  /** From now on, responses have `Connection: close`, so that clients send their next request to another node. */
  disableKeepAlive(): void {
    this.#keepAliveDisabled = true
    for (const { _httpMessage: response } of this.#open) if (response) response.shouldKeepAlive = false
  }

  /** Must be called for each HTTP/1 response before its header section is written. */
  prepareResponse(response: ServerResponse): void {
    if (this.#keepAliveDisabled) response.shouldKeepAlive = false
    // A pipelined request: Node assigns the socket when the earlier responses are complete.
    else if (response.socket === null) {
      response.once('socket', () => {
        if (this.#keepAliveDisabled) response.shouldKeepAlive = false
      })
    }
  }

  /**
   * Closes the connections of a closing server as they become idle. Node itself closes only those that are idle at once, and
   * waits for the keep-alive timeout of the others.
   */
  sweep(server: Server & { closeIdleConnections?: () => void }): void {
    if (!server.listening) return
    const timer = setInterval(() => server.closeIdleConnections?.(), sweepMs)
    server.once('close', () => clearInterval(timer))
  }

  /** Aborts all client connections, also those with requests in flight; resolves when they are closed. */
  async abortAll(): Promise<void> {
    this.#isAborting = true
    await Promise.all([...this.#open].map((socket) => this.#abort(socket)))
  }

  #abort(socket: Connection): Promise<void> {
    return new Promise((resolve) => {
      socket.once('close', () => resolve())
      // An HTTP/1.0 client takes a closed connection for the end of the body, but not a reset.
      if (this.#plain.has(socket)) socket.resetAndDestroy()
      else socket.destroy()
    })
  }
}
