import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'
import { Pool } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { Health } from '../health/health.ts'
import type { Dispatch, DispatchOptions, Endpoint } from '../types.ts'
import { capsOf } from './caps.ts'
import type { Connector } from './connector.ts'
import { PendingHandler } from './pending.ts'

/** How long an instance that left may go on with what it had begun before its connections are cut. */
const closeGraceMs = 60_000

/** undici takes a reset for the end of a body without a length: a caller would get half of it for whole. */
function resetIsNoEnd(error: NodeJS.ErrnoException): void {
  if (error.code === 'ECONNRESET') error.code = 'EPIPE'
}

/** One address and its pool of connections. */
export class PooledEndpoint implements Endpoint {
  readonly origin: string
  readonly health: Health
  active = 0
  latencyMs: number | null = null
  readonly dispatch: Dispatch
  readonly #most: number
  readonly #pool: Pool
  /** Sockets without a connection yet: the pool knows nothing of them. */
  readonly #connecting = new Set<Socket>()
  #cut: NodeJS.Timeout | undefined
  #onDestroyed: (() => void) | null = null

  constructor(origin: string, policy: MeshPolicy, health: Health, connector: Connector) {
    this.origin = origin
    this.health = health
    const { connections, most } = capsOf(policy)
    this.#most = most
    const { servername } = connector
    const pool = new Pool(origin, { connect: this.#tracked(connector), connections, pipelining: 1, allowH2: false })
    this.#pool = pool
    // One name for all requests, or undici would open a new connection for each Host header.
    const send: Dispatch =
      servername === null
        ? pool.dispatch.bind(pool)
        : (opts, handler) => pool.dispatch({ ...opts, servername } as DispatchOptions, handler)
    this.dispatch = (opts, handler) => {
      const waits = this.active > connections && opts.call !== undefined
      return send(opts, waits ? new PendingHandler(handler, opts.call!) : handler)
    }
  }

  isFull(): boolean {
    return this.active >= this.#most
  }

  #tracked({ connect }: Connector): buildConnector.connector {
    return (options, callback) => {
      const socket = connect(options, (...result) => {
        if (socket !== undefined) this.#connecting.delete(socket)
        result[1]?.prependListener('error', resetIsNoEnd)
        callback(...result)
      }) as unknown as Socket | undefined // which the types withhold; none where there is nothing to wait for
      if (socket !== undefined) this.#connecting.add(socket)
    }
  }

  /** Takes no new request, lets those in flight end, then closes; cuts them after the grace. */
  async close(): Promise<void> {
    this.#cut = setTimeout(() => void this.destroy(), closeGraceMs).unref()
    // A pool that is destroyed with a queue forgets who waits for its end.
    const destroyed = new Promise<void>((resolve) => {
      this.#onDestroyed = resolve
    })
    await Promise.race([this.#pool.close(), destroyed])
    clearTimeout(this.#cut)
  }

  async destroy(): Promise<void> {
    clearTimeout(this.#cut)
    const destroyed = this.#pool.destroy()
    for (const socket of this.#connecting) socket.destroy(new Error('the pool is closed'))
    await destroyed
    this.#onDestroyed?.()
  }
}
