import type { MeshPolicy } from '../../../config/schema.ts'
import type { Dispatch, DispatchOptions, Endpoint, Health } from '../core/types.ts'
import type { ConnectionOptions } from '../http/lifetime.ts'
import { usualConnection } from '../http/lifetime.ts'
import type { Open } from '../http/pool.ts'
import { Pool } from '../http/pool.ts'

/** Time for requests at a removed instance to end, before its connections are closed. */
const closeGraceMs = 60_000

/** One address and its pool of connections. */
export class PooledEndpoint implements Endpoint {
  readonly origin: string
  readonly health: Health
  active = 0
  latencyMs: number | null = null
  onAttempt: (() => void) | null = null
  readonly dispatch: Dispatch
  readonly maxConnections: number
  readonly #most: number
  readonly #pool: Pool
  #graceTimer: NodeJS.Timeout | undefined

  constructor(origin: string, policy: MeshPolicy, health: Health, open: Open) {
    this.origin = origin
    this.health = health
    const { connections, most } = capsOf(policy)
    this.maxConnections = connections
    this.#most = most
    const { host, protocol } = new URL(origin)
    const direct = protocol === 'http:'
    const connection = connectionOptions(policy)
    this.#pool = new Pool({ host, connections, direct, connection, open, onWait: withdrawWhenOver })
    this.dispatch = this.#pool.dispatch
  }

  isFull(): boolean {
    return this.active >= this.#most
  }

  /** Refuses new requests, waits for those in flight, then closes the connections; aborts them after the grace. */
  async close(): Promise<void> {
    this.#graceTimer = setTimeout(() => this.destroy(), closeGraceMs).unref()
    await this.#pool.close()
    clearTimeout(this.#graceTimer)
  }

  destroy(): void {
    clearTimeout(this.#graceTimer)
    this.#pool.destroy()
  }
}

/** Withdraws a request that waits for a connection once its call or attempt is over. */
function withdrawWhenOver({ call, attempt }: DispatchOptions, withdraw: (reason: Error) => void, isQueued: boolean) {
  if (isQueued) attempt?.enqueue()
  call?.whenOver(() => withdraw(call.reason ?? new Error('the call ended before it got a connection')))
  attempt?.whenOver(() => withdraw(new Error('the attempt ended before it got a connection')))
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

/** Default cap, that of Envoy; it applies without a circuit breaker, too. */
const defaultCap = 1024

/** Returns the caps of one instance: on its connections, and on attempts at it with queued ones. */
function capsOf({ circuitBreaker }: MeshPolicy): { connections: number; most: number } {
  if (!circuitBreaker || circuitBreaker.mode === 'shadow') return { connections: defaultCap, most: 2 * defaultCap }
  const { maxConnections, maxPendingRequests, maxRequests = Number.POSITIVE_INFINITY } = circuitBreaker.perInstance
  // A connection becomes idle one event-loop iteration after its response. Without the service's own cap here, the next
  // attempt in the service's queue would open another connection.
  const connections = Math.min(maxConnections, circuitBreaker.maxConnections)
  return { connections, most: Math.min(maxConnections + maxPendingRequests, maxRequests) }
}
