/**
 * A connection to the Redis that the nodes of a gateway share, for state on which no request may depend. Commands are bounded
 * in time and in number. While Redis is known to be slow or unavailable, no command is sent to it, but probes.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Redis } from 'ioredis'
import type { RedisOptions } from '../../config/schema.ts'
import { onFirstUse } from '../on-first-use.ts'

const ioredis = onFirstUse<typeof import('ioredis')>('ioredis')

/** Reason for which a command has no result. `reply`: Redis has replied with an error. */
export type RedisFailure = 'unavailable' | 'busy' | 'timeout' | 'reply'

/** Result of a command: exactly one of both is set. */
export type RedisDone<T> = (result: T | null, failure: RedisFailure | null, error: Error | null) => void

interface Facts {
  /** Lua scripts by name; `numberOfKeys` is given with each call where it is absent. */
  readonly scripts: Readonly<Record<string, { readonly lua: string; readonly numberOfKeys?: number }>>
  /** Command that Redis must be able to run before it counts as available again. */
  readonly probe: (client: Redis) => Promise<unknown>
  /** True if an error reply shows that Redis is of no use until a probe succeeds. */
  readonly suspendsOnErrors: boolean
  /** Timeouts in a row that show the same. More than one lets a connection transfer large values, behind which others wait. */
  readonly timeoutsToSuspend: number
  /** Called each time Redis becomes available. */
  readonly onUp: () => void
  /** Log messages for the loss of Redis and for its return. */
  readonly messages: { readonly down: string; readonly up: string }
}

const probeInterval = 500
/** Time without a response after which the connection is replaced. */
const deadAfter = 5000
/** Most commands that wait for a reply. */
const maxWaiting = 10_000

export class RedisConnection {
  readonly client: Redis
  readonly #facts: Facts
  readonly #timeout: number
  readonly #log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  #suspended = false
  #reported = false
  #closed = false
  #waiting = 0
  #timeoutsInRow = 0
  #probe: NodeJS.Timeout | undefined
  #watch: NodeJS.Timeout | undefined

  constructor(options: RedisOptions, facts: Facts, log: Pick<FastifyBaseLogger, 'info' | 'warn'>) {
    this.#timeout = options.timeout
    this.#facts = facts
    this.#log = log
    this.client = new (ioredis().Redis)(options.url, {
      lazyConnect: true,
      enableOfflineQueue: false,
      maxRetriesPerRequest: 0,
      autoResendUnfulfilledCommands: false,
      connectTimeout: deadAfter,
      // After a failover, this Redis node may have become a replica.
      reconnectOnError: (error) => error.message.startsWith('READONLY'),
      retryStrategy: (times) => Math.min(50 * 2 ** Math.min(times, 10), 5000) * (0.75 + Math.random() / 2),
      scripts: { ...facts.scripts }
    })
    this.client.on('connect', () => this.#scheduleReconnect())
    this.client.on('ready', () => this.#resume())
    this.client.on('close', () => this.#onClose())
    this.client.on('error', (error: Error) => this.#report(error))
  }

  /** True while Redis is connected and responds in time. */
  get isUp(): boolean {
    return this.client.status === 'ready' && !this.#suspended
  }

  /** Starts to connect, and reconnects until `close`. */
  connect(): void {
    if (this.client.status === 'wait') this.client.connect().catch(() => {})
  }

  close(): void {
    this.#closed = true
    clearTimeout(this.#probe)
    clearTimeout(this.#watch)
    this.client.disconnect()
  }

  /** Runs a command, and calls back within the time: at once if Redis is not available. */
  run<T>(command: (client: Redis) => Promise<T>, done: RedisDone<T>, timeout = this.#timeout): void {
    if (!this.isUp) {
      done(null, 'unavailable', null)
      return
    }
    if (this.#waiting >= maxWaiting) {
      done(null, 'busy', null)
      return
    }
    this.#waiting++
    let isOpen = true
    const settle = (result: T | null, failure: RedisFailure | null, error: Error | null): void => {
      if (!isOpen) return
      isOpen = false
      clearTimeout(timer)
      done(result, failure, error)
    }
    const timer = setTimeout(() => {
      // If this process was busy, the response may already be in the kernel, and is read first.
      setImmediate(() => {
        if (!isOpen) return
        const error = new Error(`no response within ${timeout} ms`)
        this.#timeoutsInRow++
        if (this.#timeoutsInRow >= this.#facts.timeoutsToSuspend) this.#suspend(error)
        settle(null, 'timeout', error)
      })
    }, timeout)
    command(this.client).then(
      (result) => {
        this.#waiting--
        if (isOpen) this.#timeoutsInRow = 0
        settle(result, null, null)
      },
      (error: Error) => {
        this.#waiting--
        const isReply = error.name === 'ReplyError'
        if (!isReply || this.#facts.suspendsOnErrors) this.#suspend(error)
        settle(null, isReply ? 'reply' : 'unavailable', error)
      }
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

  async #runProbe(): Promise<void> {
    if (this.client.status !== 'ready') return
    const start = performance.now()
    this.#scheduleReconnect()
    try {
      await this.#facts.probe(this.client)
      clearTimeout(this.#watch)
      if (performance.now() - start <= this.#timeout) this.#resume()
      else this.#scheduleProbe()
    } catch {
      // After a lost connection the client reconnects; after an error reply, probe again.
      clearTimeout(this.#watch)
      if (this.client.status === 'ready') this.#scheduleProbe()
    }
  }

  /** Reconnects unless Redis responds: a connection to a vanished peer would stay open for many minutes. */
  #scheduleReconnect(): void {
    clearTimeout(this.#watch)
    this.#watch = setTimeout(() => this.client.disconnect(true), deadAfter).unref()
  }

  #resume(): void {
    clearTimeout(this.#watch)
    clearTimeout(this.#probe)
    this.#suspended = false
    this.#timeoutsInRow = 0
    this.#facts.onUp()
    if (this.#reported) this.#log.info(this.#facts.messages.up)
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
    this.#log.warn({ err: error }, this.#facts.messages.down)
  }
}
