/**
 * The gateway's connection to the Redis that its cluster shares. No request depends on it: after the timeout, or at once
 * while Redis is known to be slow or unavailable, the result is null and the node counts on its own.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Redis, Result } from 'ioredis'
import type { RedisOptions } from '../../../../config/schema.ts'
import { onFirstUse } from '../../../on-first-use.ts'

const ioredis = onFirstUse<typeof import('ioredis')>('ioredis')

declare module 'ioredis' {
  interface RedisCommander<Context> {
    jingweiHit(key: string, window: number): Result<[number, number], Context>
  }
}

/** Requests in the window so far, this one included, and the milliseconds until it ends. */
export interface Count {
  current: number
  ttl: number
}

/** Increments and reads a counter atomically. Sets its expiry if it has none, or one that is longer than the window. */
const script = `
local current = redis.call('INCR', KEYS[1])
local ttl = redis.call('PTTL', KEYS[1])
local window = tonumber(ARGV[1])
if ttl < 0 or ttl > window then
  redis.call('PEXPIRE', KEYS[1], window)
  ttl = window
end
return {current, ttl}`

const probeInterval = 500
/** Time without a response after which the connection is replaced. */
const deadAfter = 5000

export class RedisLink {
  readonly #client: Redis
  readonly #timeout: number
  readonly #log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  #suspended = false
  #reported = false
  #closed = false
  #probe: NodeJS.Timeout | undefined
  #watch: NodeJS.Timeout | undefined

  constructor(options: RedisOptions, log: Pick<FastifyBaseLogger, 'info' | 'warn'>) {
    this.#timeout = options.timeout
    this.#log = log
    this.#client = new (ioredis().Redis)(options.url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      connectTimeout: deadAfter,
      // After a failover, this Redis node may have become a replica.
      reconnectOnError: (error) => error.message.startsWith('READONLY'),
      retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), 5000) * (0.75 + Math.random() / 2),
      scripts: { jingweiHit: { lua: script, numberOfKeys: 1 } }
    })
    this.#client.on('connect', () => this.#scheduleReconnect())
    this.#client.on('ready', () => this.#resume())
    this.#client.on('close', () => this.#onClose())
    this.#client.on('error', (error: Error) => this.#report(error))
  }

  /** True while Redis is connected and responds in time. */
  get isUp(): boolean {
    return this.#client.status === 'ready' && !this.#suspended
  }

  /** Starts to connect, and reconnects until `close`. */
  connect(): void {
    if (this.#client.status === 'wait') this.#client.connect().catch(() => {})
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#probe)
    clearTimeout(this.#watch)
    this.#client.disconnect()
  }

  /** Counts a request. Calls back within the timeout; with null if the node is to count on its own. */
  hit(key: string, window: number, done: (count: Count | null) => void): void {
    if (!this.isUp) {
      done(null)
      return
    }
    let open = true
    const settle = (count: Count | null, error?: Error): void => {
      if (!open) return
      open = false
      clearTimeout(timer)
      if (error) this.#suspend(error)
      done(count)
    }
    // setImmediate: if this process was busy, the response may already be in the kernel, and is read first.
    const timer = setTimeout(() => {
      setImmediate(() => settle(null, new Error(`no response within ${this.#timeout} ms`)))
    }, this.#timeout)
    this.#client.jingweiHit(key, window).then(
      ([current, ttl]) => settle({ current, ttl }),
      (error: Error) => settle(null, error)
    )
  }

  /** Sends no commands to Redis until it has responded to a probe in time. */
  #suspend(error: Error): void {
    this.#report(error)
    if (this.#suspended || this.#closed) return
    this.#suspended = true
    this.#scheduleProbe()
  }

  #scheduleProbe(): void {
    clearTimeout(this.#probe)
    if (this.#closed) return
    this.#probe = setTimeout(() => this.#runProbe(), probeInterval).unref()
  }

  /** Probes with the command of requests, so that a Redis which responds but cannot write stays suspended. */
  async #runProbe(): Promise<void> {
    if (this.#client.status !== 'ready') return
    const start = performance.now()
    this.#scheduleReconnect()
    try {
      await this.#client.jingweiHit('jingwei:probe', 1000)
      clearTimeout(this.#watch)
      if (performance.now() - start <= this.#timeout) this.#resume()
      else this.#scheduleProbe()
    } catch {
      // After a lost connection the client reconnects; after an error reply, probe again.
      clearTimeout(this.#watch)
      if (this.#client.status === 'ready') this.#scheduleProbe()
    }
  }

  /** Reconnects unless Redis responds: a connection to a vanished peer would stay open for many minutes. */
  #scheduleReconnect(): void {
    clearTimeout(this.#watch)
    this.#watch = setTimeout(() => this.#client.disconnect(true), deadAfter).unref()
  }

  #resume(): void {
    clearTimeout(this.#watch)
    clearTimeout(this.#probe)
    this.#suspended = false
    if (this.#reported) this.#log.info('Redis responds again: rate limits are shared with the other nodes')
    this.#reported = false
  }

  #onClose(): void {
    clearTimeout(this.#watch)
    clearTimeout(this.#probe)
    this.#report(new Error('connection closed'))
  }

  /** Logs an error, once per outage. */
  #report(error: Error): void {
    if (this.#reported || this.#closed) return
    this.#reported = true
    this.#log.warn({ err: error }, 'Redis is unavailable: this node applies rate limits on its own')
  }
}
