import type { OnReadOpts, Socket } from 'node:net'
import { ConnectionError } from '../core/errors.ts'
import type { DispatchHandler, DispatchOptions } from '../core/types.ts'
import { errors } from '../core/undici.ts'
import type { Owner } from './connection.ts'
import { Connection } from './connection.ts'
import type { ConnectionOptions } from './lifetime.ts'
import { usualConnection } from './lifetime.ts'
import { PooledRequest } from './pooled-request.ts'
import { ReadBuffer } from './read-buffer.ts'

/** Makes a connection; `onread` is Node's option of that name. Returns what can be cut while it is made. */
export type Open = (
  callback: (error: Error | null, socket: Socket | null) => void,
  onread: OnReadOpts | undefined
) => Socket | undefined

export interface PoolOptions {
  /** Host header of requests that have none of their own. */
  readonly host: string
  /** Number of connections that there may be. */
  readonly connections: number
  readonly direct: boolean
  readonly connection?: ConnectionOptions
  readonly open: Open
  /**
   * Called for a request that has to wait, with a function that withdraws it. `isQueued`: for another request to release
   * its connection, since there may not be more of them; else for a connection that is being established. What it returns
   * is called when the wait is over.
   */
  readonly onWait: (
    opts: DispatchOptions,
    withdraw: (reason: Error) => void,
    isQueued: boolean
  ) => (() => void) | undefined
}

/**
 * HTTP/1.1 connections to one address, one request at a time on each. Requests that find none wait in a queue. A request
 * is sent after the reads of the event-loop iteration: a connection that the service has closed, or on which it has sent
 * bytes that answer no request, is found out before a request goes out on it.
 */
export class Pool implements Owner {
  readonly #host: string
  readonly #open: Open
  readonly #most: number
  readonly #connectionOptions: ConnectionOptions
  /** True if bytes are read without Node's streams in between. */
  readonly #direct: boolean
  readonly #onWait: PoolOptions['onWait']
  readonly #connections = new Set<Connection>()
  /** A LIFO stack, so that surplus connections reach their idle timeout. */
  readonly #idle: Connection[] = []
  /** Sockets without a connection yet. */
  readonly #opening = new Set<Socket>()
  #openings = 0
  /** Of these, each for one request alone. */
  #reserved = 0
  /** Came in this turn. */
  #arrived: { request: PooledRequest; opts: DispatchOptions }[] = []
  /** Requests that found no connection. */
  readonly #queue = new Set<PooledRequest>()
  #scheduled = false
  /** Null while it takes requests. */
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

  /** Errors go to the handler: undici's `InvalidArgumentError` where the request cannot be one. */
  readonly dispatch = (opts: DispatchOptions, handler: DispatchHandler): boolean => {
    try {
      if (this.#state !== null) throw this.#closedReason()
      this.#arrived.push({ request: new PooledRequest(opts, handler, this.#host), opts })
    } catch (error) {
      handler.onResponseError?.(null as never, error as Error) // as undici does: there is nothing to hold
      return true
    }
    this.#schedule()
    return true
  }

  idle(connection: Connection): void {
    this.#idle.push(connection)
    if (this.#queue.size > 0) this.#schedule()
    else if (this.#state !== null) connection.close()
  }

  left(connection: Connection): void {
    this.#connections.delete(connection)
    const at = this.#idle.lastIndexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
    this.#advance()
  }

  /** Takes no new request; resolves when those that it has are done. */
  async close(): Promise<void> {
    this.#state ??= 'closed'
    if (this.#queue.size === 0 && this.#arrived.length === 0) for (const each of [...this.#idle]) each.close()
    await new Promise<void>((resolve) => {
      this.#whenEmpty.push(resolve)
      this.#advance()
    })
  }

  /** Ends everything at once. */
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

  /** The error of requests that a closed pool does not take. Most pools end without any, and an error takes a while to make. */
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

  /** Something has ended: who waits may go on. */
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

  /** False if it has to wait. */
  #place(request: PooledRequest): boolean {
    if (request.over) return true
    if (request.upgrade !== null || request.fresh) {
      // One of its own, if need be in the place of an idle one.
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

  /** For one request, or for whichever is first in the queue by then. */
  #connect(only: PooledRequest | null): void {
    this.#openings++
    if (only !== null) this.#reserved++
    // An upgrade's is given away as a stream.
    const streamed = (only !== null && only.upgrade !== null) || !this.#direct
    let connection: Connection | null = null
    const buffer = streamed ? null : new ReadBuffer()
    const callback = (bytes: number) => connection === null || connection.readLent(bytes)
    let socket: Socket | undefined
    let answered = false
    const onAnswer = (error: Error | null, connected: Socket | null) => {
      answered = true
      this.#openings--
      if (only !== null) this.#reserved--
      if (socket !== undefined) this.#opening.delete(socket)
      if (error !== null) {
        this.#refused(only, error)
      } else if (this.#state === 'destroyed') {
        connected!.destroy()
        this.#advance()
      } else {
        connection = new Connection(connected!, this, buffer, this.#connectionOptions)
        this.#connections.add(connection)
        const request = only ?? this.#first()
        if (request === null) connection.rest()
        else connection.run(request)
      }
    }
    try {
      socket = this.#open(onAnswer, buffer === null ? undefined : { buffer: () => buffer.current, callback })
      if (socket !== undefined && !answered) this.#opening.add(socket)
    } catch (error) {
      onAnswer(error as Error, null)
    }
  }

  #refused(only: PooledRequest | null, error: Error): void {
    const request = only ?? this.#first()
    request?.fail(error)
    this.#advance()
  }

  /** Takes the request that has waited longest, of those that are no upgrade, out of the queue. */
  #first(): PooledRequest | null {
    for (const request of this.#queue) {
      if (request.upgrade !== null) continue
      this.#queue.delete(request)
      return request
    }
    return null
  }
}
