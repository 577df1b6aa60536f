import type { Socket } from 'node:net'
import type { buildConnector } from 'undici'
import { Pool } from 'undici'
import type { MeshPolicy } from '../../../config/schema.ts'
import type { Health } from '../health/health.ts'
import type { Dispatch, DispatchOptions, Endpoint } from '../types.ts'
import type { Connector } from './connector.ts'
import { connectorFor } from './connector.ts'

/** How long an instance that left may go on with what it had begun before its connections are cut. */
const closeGraceMs = 60_000
/** Envoy's; in force also where no circuit breaker is. */
const defaultCap = 1024

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

  constructor(origin: string, policy: MeshPolicy, health: Health) {
    this.origin = origin
    this.health = health
    const caps = policy.circuitBreaker ? policy.circuitBreaker.perInstance : undefined
    const connections = caps?.maxConnections ?? defaultCap
    const waiting = connections + (caps?.maxPendingRequests ?? defaultCap)
    this.#most = Math.min(waiting, caps?.maxRequests ?? waiting)
    const connector = connectorFor(origin, policy)
    const { servername } = connector
    const pool = new Pool(origin, { connect: this.#tracked(connector), connections, pipelining: 1, allowH2: false })
    this.#pool = pool
    // One name for all requests, or undici would open a new connection for each Host header.
    this.dispatch =
      servername === null
        ? pool.dispatch.bind(pool)
        : (opts, handler) => pool.dispatch({ ...opts, servername } as DispatchOptions, handler)
  }

  isFull(): boolean {
    return this.active >= this.#most
  }

  #tracked({ connect }: Connector): buildConnector.connector {
    return (options, callback) => {
      const socket = connect(options, (...result) => {
        this.#connecting.delete(socket)
        callback(...result)
      }) as unknown as Socket // which the types withhold
      this.#connecting.add(socket)
    }
  }

  /** Takes no new request, lets those in flight end, then closes; cuts them after the grace. */
  async close(): Promise<void> {
    const cut = setTimeout(() => void this.destroy(), closeGraceMs)
    cut.unref()
    try {
      await this.#pool.close()
    } finally {
      clearTimeout(cut)
    }
  }

  async destroy(): Promise<void> {
    const destroyed = this.#pool.destroy()
    for (const socket of this.#connecting) socket.destroy(new Error('the pool is closed'))
    await destroyed
  }
}
