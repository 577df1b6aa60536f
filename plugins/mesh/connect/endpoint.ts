import type { MeshPolicy } from '../../../config/schema.ts'
import type { Dispatch, DispatchOptions, Endpoint, Health } from '../core/types.ts'
import type { ConnectionOptions } from '../http/lifetime.ts'
import { usualConnection } from '../http/lifetime.ts'
import type { Open } from '../http/pool.ts'
import { Pool } from '../http/pool.ts'
import { capsOf } from './caps.ts'

/** How long an instance that left may go on with what it had begun before its connections are cut. */
const closeGraceMs = 60_000

/** One address and its pool of connections. */
export class PooledEndpoint implements Endpoint {
  readonly origin: string
  readonly health: Health
  active = 0
  latencyMs: number | null = null
  onAttempt: (() => void) | null = null
  readonly dispatch: Dispatch
  readonly #most: number
  readonly #pool: Pool
  #cut: NodeJS.Timeout | undefined

  constructor(origin: string, policy: MeshPolicy, health: Health, open: Open) {
    this.origin = origin
    this.health = health
    const { connections, most } = capsOf(policy)
    this.#most = most
    const { host, protocol } = new URL(origin)
    const direct = protocol === 'http:'
    const connection = connectionOptions(policy)
    this.#pool = new Pool({ host, connections, direct, connection, open, onWait: leaveInTime })
    this.dispatch = this.#pool.dispatch
  }

  isFull(): boolean {
    return this.active >= this.#most
  }

  /** Takes no new request, lets those in flight end, then closes; cuts them after the grace. */
  async close(): Promise<void> {
    this.#cut = setTimeout(() => this.destroy(), closeGraceMs).unref()
    await this.#pool.close()
    clearTimeout(this.#cut)
  }

  destroy(): void {
    clearTimeout(this.#cut)
    this.#pool.destroy()
  }
}

/** Withdraws a request that waits for a connection once its call or attempt is over. */
function leaveInTime({ call, attempt }: DispatchOptions, withdraw: (reason: Error) => void, isQueued: boolean) {
  if (isQueued) attempt?.enqueue()
  call?.whenOver(() => withdraw(call.reason ?? new Error('the call was over before its turn came')))
  attempt?.whenOver(() => withdraw(new Error('the attempt was over before its turn came')))
  return isQueued ? () => attempt?.dequeue() : undefined
}

function connectionOptions({ connections, maxHeaderSize }: MeshPolicy): ConnectionOptions {
  const { idle, maxAge, maxRequests } = connections ?? {}
  return {
    idleMs: idle ?? usualConnection.idleMs,
    maxAgeMs: maxAge ?? usualConnection.maxAgeMs,
    maxRequests: maxRequests ?? usualConnection.maxRequests,
    maxHeaderSize: maxHeaderSize ?? usualConnection.maxHeaderSize
  }
}
