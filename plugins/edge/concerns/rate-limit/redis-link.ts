/**
 * The gateway's one connection to the Redis that its cluster shares. It is asked, never waited for: at its
 * timeout, or at once while it is known to be slow or away, the answer is null and the node decides alone.
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

/** One step, so that nodes do not count past each other. Sets an end where none is, or a longer one. */
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
/** Longest silence of a connection that has been asked something, before it is given up. */
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
      // After a failover, the node at hand may have become a replica.
      reconnectOnError: (error) => error.message.startsWith('READONLY'),
      retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), 5000) * (0.75 + Math.random() / 2),
      scripts: { jingweiHit: { lua: script, numberOfKeys: 1 } }
    })
    this.#client.on('connect', () => this.#giveUpLater())
    this.#client.on('ready', () => this.#resume())
    this.#client.on('close', () => this.#lost())
    this.#client.on('error', (error: Error) => this.#report(error))
  }

  /** Redis answers in time. */
  get isUp(): boolean {
    return this.#client.status === 'ready' && !this.#suspended
  }

  /** Returns at once; goes on trying for good. */
  connect(): void {
    if (this.#client.status === 'wait') this.#client.connect().catch(() => {})
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#probe)
    clearTimeout(this.#watch)
    this.#client.disconnect()
  }

  /** Calls back within the timeout; with null if the node is to decide alone. */
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
    // A busy process may be late itself: an answer that has already arrived is read before time is called.
    const timer = setTimeout(() => {
      setImmediate(() => settle(null, new Error(`no response within ${this.#timeout} ms`)))
    }, this.#timeout)
    this.#client.jingweiHit(key, window).then(
      ([current, ttl]) => settle({ current, ttl }),
      (error: Error) => settle(null, error)
    )
  }

  /** Sends no commands to Redis until it has answered a probe in time. */
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

  /** The very step that requests need, so that a Redis which answers but cannot write stays out. */
  async #runProbe(): Promise<void> {
    if (this.#client.status !== 'ready') return
    const start = performance.now()
    this.#giveUpLater()
    try {
      await this.#client.jingweiHit('jingwei:probe', 1000)
      clearTimeout(this.#watch)
      if (performance.now() - start <= this.#timeout) this.#resume()
      else this.#scheduleProbe()
    } catch {
      // A lost connection is another's business; an error reply is asked about again.
      clearTimeout(this.#watch)
      if (this.#client.status === 'ready') this.#scheduleProbe()
    }
  }

  /** A peer that vanished without a word leaves a connection that looks alive for many minutes. */
  #giveUpLater(): void {
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

  #lost(): void {
    clearTimeout(this.#watch)
    clearTimeout(this.#probe)
    this.#report(new Error('connection closed'))
  }

  /** Once per outage. */
  #report(error: Error): void {
    if (this.#reported || this.#closed) return
    this.#reported = true
    this.#log.warn({ err: error }, 'Redis is unavailable: this node applies rate limits on its own')
  }
}
