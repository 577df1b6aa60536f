import type { ServerResponse } from 'node:http'
import type { Server, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'

/** Node's own link to the response under way. A set of responses of our own costs the collector. */
interface Connection extends Socket {
  _httpMessage?: ServerResponse | null
}

/** Milliseconds between two looks of a closing server for connections that have become idle. */
const sweepMs = 50

const CONNECTIONS = Symbol('jingwei.connections')

/** Returns the connections of a server, tracked from now on; what stands for the server has the same. */
export function connectionsOf(server: Server): Connections {
  const known = Reflect.get(server, CONNECTIONS) as Connections | undefined
  if (known !== undefined) return known
  const connections = new Connections()
  connections.track(server)
  return connections
}

/** Connections of clients to one or more servers, and their orderly end. They outlive a configuration. */
export class Connections {
  readonly #open = new Set<Connection>()
  /** Those without TLS. */
  readonly #plain = new WeakSet<Connection>()
  #draining: Promise<void> | null = null
  #leaving = false
  #cutting = false

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

  /** True if exchanges that end now were broken off by the shutdown. */
  get isCutting(): boolean {
    return this.#cutting
  }

  /** Sends clients elsewhere; resolves after the time in which they may still come. */
  drain(delayMs: number): Promise<void> {
    if (this.#draining === null) this.sendElsewhere()
    this.#draining ??= sleep(delayMs)
    return this.#draining
  }

  /** Clients learn from `Connection: close` that their next request belongs elsewhere. */
  sendElsewhere(): void {
    this.#leaving = true
    for (const { _httpMessage: response } of this.#open) if (response) response.shouldKeepAlive = false
  }

  /** To be called for each response of HTTP/1 before it begins. */
  meet(response: ServerResponse): void {
    if (this.#leaving) response.shouldKeepAlive = false
    // Behind answers to earlier requests: Node gives it the connection when its turn has come.
    else if (response.socket === null) {
      response.once('socket', () => {
        if (this.#leaving) response.shouldKeepAlive = false
      })
    }
  }

  /**
   * Closes the connections of a closing server as they become idle: Node closes those that are idle now, and would wait out
   * the keep-alive time of those that become it.
   */
  sweep(server: Server & { closeIdleConnections?: () => void }): void {
    if (!server.listening) return
    const timer = setInterval(() => server.closeIdleConnections?.(), sweepMs)
    server.once('close', () => clearInterval(timer))
  }

  /** Ends every client's connection, whatever is under way on it; resolves once they are closed. */
  async cut(): Promise<void> {
    this.#cutting = true
    await Promise.all([...this.#open].map((socket) => this.#cut(socket)))
  }

  #cut(socket: Connection): Promise<void> {
    return new Promise((resolve) => {
      socket.once('close', () => resolve())
      // To HTTP/1.0 a closed connection is the end of the body; only a reset is not.
      if (this.#plain.has(socket)) socket.resetAndDestroy()
      else socket.destroy()
    })
  }
}
