import type { Socket } from 'node:net'
import { isIP } from 'node:net'
import { buildConnector, Pool } from 'undici'
import type { Dispatch, DispatchOptions, Endpoint } from '../types.ts'

/** How long an instance that left may go on with what it had begun before its connections are cut. */
const closeGraceMs = 60_000

/** One address and its pool of connections. */
export class PooledEndpoint implements Endpoint {
  readonly origin: string
  active = 0
  readonly dispatch: Dispatch
  readonly #pool: Pool
  /** Sockets without a connection yet: the pool knows nothing of them. */
  readonly #connecting = new Set<Socket>()

  constructor(origin: string, connectTimeoutMs: number) {
    this.origin = origin
    const { protocol, hostname } = new URL(origin)
    const host = hostname.replace(/^\[|\]$/g, '')
    const pool = new Pool(origin, { connect: this.#connector(host, connectTimeoutMs), pipelining: 1, allowH2: false })
    this.#pool = pool
    // One name for all requests, or undici would open a new connection for each Host header.
    this.dispatch =
      protocol === 'https:'
        ? (opts, handler) => pool.dispatch({ ...opts, servername: host } as DispatchOptions, handler)
        : pool.dispatch.bind(pool)
  }

  #connector(host: string, timeout: number): buildConnector.connector {
    const connect = buildConnector({ timeout, allowH2: false })
    // Whom the certificate must name is the instance's own matter: undici would take it from the Host header,
    // which a gateway's clients write.
    const servername = isIP(host) === 0 ? host : undefined
    return (options, callback) => {
      const socket = connect({ ...options, servername }, (...result) => {
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
