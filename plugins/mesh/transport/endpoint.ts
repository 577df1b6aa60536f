import { Pool } from 'undici'
import type { Dispatch, Endpoint } from '../types.ts'

/** How long an instance that left may go on with what it had begun before its connections are cut. */
const closeGraceMs = 60_000

/** One address and its pool of connections. */
export class PooledEndpoint implements Endpoint {
  readonly origin: string
  active = 0
  readonly dispatch: Dispatch
  readonly #pool: Pool

  constructor(origin: string, connectTimeoutMs: number) {
    this.origin = origin
    this.#pool = new Pool(origin, { connectTimeout: connectTimeoutMs, pipelining: 1, allowH2: false })
    this.dispatch = this.#pool.dispatch.bind(this.#pool)
  }

  /** Takes no new request, lets those in flight end, then closes; cuts them after the grace. */
  async close(graceMs = closeGraceMs): Promise<void> {
    const cut = setTimeout(() => void this.#pool.destroy().catch(() => {}), graceMs)
    cut.unref()
    try {
      await this.#pool.close()
    } finally {
      clearTimeout(cut)
    }
  }

  destroy(): Promise<void> {
    return this.#pool.destroy()
  }
}
