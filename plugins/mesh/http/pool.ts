import type { OnReadOpts, Socket } from 'node:net'
import { errors } from '../../undici.ts'
import { ConnectionError } from '../core/errors.ts'
import type { DispatchHandler, DispatchOptions } from '../core/types.ts'
import type { Owner } from './connection.ts'
import { Connection } from './connection.ts'
import type { ConnectionOptions } from './lifetime.ts'
import { usualConnection } from './lifetime.ts'
import { PooledRequest } from './pooled-request.ts'
import { ReadBuffer } from './read-buffer.ts'

/**
 * Opens a connection; `onread` is Node's option of that name. Returns the socket that is connecting, to be destroyed
 * early.
 */
export type Open = (
  callback: (error: Error | null, socket: Socket | null) => void,
  onread: OnReadOpts | undefined
) => Socket | undefined

export interface PoolOptions {
  /** Host header of requests that have none of their own. */
  readonly host: string
  /** Most connections. */
  readonly connections: number
  readonly direct: boolean
  readonly connection?: ConnectionOptions
  readonly open: Open
  /**
   * Called when a request must wait for a connection. `withdraw` removes it from the queue and fails it. `isQueued` is true
   * if the limit of connections is reached, so that another request must release its connection first; false if a
   * connection that is being opened will serve it. The returned function is called when the wait ends.
   */
  readonly onWait: (
    opts: DispatchOptions,
    withdraw: (reason: Error) => void,
    isQueued: boolean
  ) => (() => void) | undefined
}

/**
 * Pool of HTTP/1.1 connections to one address, with one request at a time on each. Requests without a connection are
 * queued. A request is sent after the reads of the event-loop iteration, so that a connection which the service has
 * closed, or on which it has sent unexpected bytes, is detected before it is used.
 */
export class Pool implements Owner {
  readonly #host: string
  readonly #open: Open
  readonly #most: number
  readonly #connectionOptions: ConnectionOptions
  /** True if bytes are read by `onread`, without Node's streams. */
  readonly #direct: boolean
  readonly #onWait: PoolOptions['onWait']
  readonly #connections = new Set<Connection>()
  /** A LIFO stack, so that surplus connections reach their idle timeout. */
  readonly #idle: Connection[] = []
  /** Sockets without a connection yet. */
  readonly #opening = new Set<Socket>()
  #openings = 0
  /** Openings that are each reserved for one request. */
  #reserved = 0
  /** Requests of this event-loop iteration. */
  #arrived: { request: PooledRequest; opts: DispatchOptions }[] = []
  /** Requests that wait for a connection. */
  readonly #queue = new Set<PooledRequest>()
  #scheduled = false
  /** Null while the pool accepts requests. */
  #state: 'closed' | 'destroyed' | null = null
  #reason: Error | null = null
  #whenEmpty: (() => void)[] = []

  constructor({ host, connections, direct, connection = usualConnection, open, onWait }: PoolOptions) {
    this.#host = host
    this.#most = connections
    this.#direct = direct
    this.#connectionOptions = connection
    this.#open = open
    this.#onWait = onWait
  }

  /** Dispatches a request. Errors go to the handler, such as undici's `InvalidArgumentError` for an invalid request. */
  readonly dispatch = (opts: DispatchOptions, handler: DispatchHandler): boolean => {
    try {
      if (this.#state !== null) throw this.#closedReason()
      this.#arrived.push({ request: new PooledRequest(opts, handler, this.#host), opts })
    } catch (error) {
      handler.onResponseError?.(null as never, error as Error) // no controller, as in undici
      return true
    }
    this.#schedule()
    return true
  }

  onIdle(connection: Connection): void {
    this.#idle.push(connection)
    if (this.#queue.size > 0) this.#schedule()
    else if (this.#state !== null) connection.close()
  }

  onClosed(connection: Connection): void {
    this.#connections.delete(connection)
    const at = this.#idle.lastIndexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
    this.#advance()
  }

  /** Refuses new requests; resolves when the current ones have ended. */
  async close(): Promise<void> {
    this.#state ??= 'closed'
    if (this.#queue.size === 0 && this.#arrived.length === 0) for (const each of [...this.#idle]) each.close()
    await new Promise<void>((resolve) => {
      this.#whenEmpty.push(resolve)
      this.#advance()
    })
  }

  /** Closes all connections and fails all requests at once. */
  destroy(): void {
    this.#state = 'destroyed'
    this.#reason = null
    for (const socket of this.#opening) socket.destroy(this.#closedReason())
    for (const connection of [...this.#connections]) connection.destroy(this.#closedReason())
    for (const request of [...this.#arrived.splice(0).map(({ request }) => request), ...this.#queue]) {
      this.#queue.delete(request)
      request.fail(this.#closedReason())
    }
    this.#advance()
  }

  /** Returns the error of requests to a closed pool; created on demand, because most pools never need one. */
  #closedReason(): Error {
    const { ClientClosedError, ClientDestroyedError } = errors
    const make = () => (this.#state === 'closed' ? new ClientClosedError() : new ClientDestroyedError())
    this.#reason ??= new ConnectionError('JW_INSTANCE_REMOVED', make())
    return this.#reason
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(this.#serve)
  }

  /** Continues after a request or connection has ended: serves the queue, or resolves `close`. */
  #advance(): void {
    if (this.#queue.size > 0) this.#schedule()
    else if (this.#connections.size + this.#openings + this.#arrived.length === 0) {
      for (const resolve of this.#whenEmpty.splice(0)) resolve()
    }
  }

  readonly #serve = () => {
    this.#scheduled = false
    for (const request of this.#queue) {
      if (!this.#place(request)) break
      this.#queue.delete(request)
    }
    const arrived = this.#arrived
    this.#arrived = []
    for (const { request, opts } of arrived) {
      // A handler may have called destroy() while this loop runs.
      if (this.#state === 'destroyed') request.fail(this.#closedReason())
      else if (this.#queue.size > 0 || !this.#place(request)) this.#await(request, opts)
    }
    while (this.#openings - this.#reserved < this.#queue.size && this.#hasRoom()) this.#connect(null)
    if (this.#state !== null) for (const each of [...this.#idle]) each.close()
  }

  #await(request: PooledRequest, opts: DispatchOptions): void {
    this.#queue.add(request)
    const ownConnection = request.upgrade !== null || request.fresh
    const mayOpen = this.#most - this.#connections.size - this.#reserved
    const withdraw = (reason: Error) => {
      if (this.#queue.delete(request)) request.fail(reason)
    }
    request.onPlaced = this.#onWait(opts, withdraw, ownConnection || this.#queue.size > mayOpen)
  }

  #hasRoom(): boolean {
    return this.#connections.size + this.#openings < this.#most
  }

  /** Starts a request; returns false if it must wait. */
  #place(request: PooledRequest): boolean {
    if (request.over) return true
    if (request.upgrade !== null || request.fresh) {
      // Open a new connection; at the limit, close an idle one for it.
      if (!this.#hasRoom()) this.#idle[0]?.close()
      if (!this.#hasRoom()) return false
      this.#connect(request)
      return true
    }
    const connection = this.#idle.pop()
    if (connection === undefined) return false
    connection.run(request)
    return true
  }

  /** Opens a connection for one request, or (null) for the first in the queue at that time. */
  #connect(only: PooledRequest | null): void {
    this.#openings++
    if (only !== null) this.#reserved++
    // The connection of an upgrade is handed over as a stream.
    const streamed = (only !== null && only.upgrade !== null) || !this.#direct
    let connection: Connection | null = null
    const buffer = streamed ? null : new ReadBuffer()
    const callback = (bytes: number) => connection === null || connection.readLent(bytes)
    let socket: Socket | undefined
    let settled = false
    const onSettled = (error: Error | null, connected: Socket | null) => {
      settled = true
      this.#openings--
      if (only !== null) this.#reserved--
      if (socket !== undefined) this.#opening.delete(socket)
      if (error !== null) {
        this.#failFirst(only, error)
      } else if (this.#state === 'destroyed') {
        connected!.destroy()
        this.#advance()
      } else {
        connection = new Connection(connected!, this, buffer, this.#connectionOptions)
        this.#connections.add(connection)
        const request = only ?? this.#first()
        if (request === null) connection.makeIdle()
        else connection.run(request)
      }
    }
    try {
      socket = this.#open(onSettled, buffer === null ? undefined : { buffer: () => buffer.current, callback })
      if (socket !== undefined && !settled) this.#opening.add(socket)
    } catch (error) {
      onSettled(error as Error, null)
    }
  }

  #failFirst(only: PooledRequest | null, error: Error): void {
    const request = only ?? this.#first()
    request?.fail(error)
    this.#advance()
  }

  /** Removes and returns the oldest queued request that is not an upgrade. */
  #first(): PooledRequest | null {
    for (const request of this.#queue) {
      if (request.upgrade !== null) continue
      this.#queue.delete(request)
      return request
    }
    return null
  }
}
