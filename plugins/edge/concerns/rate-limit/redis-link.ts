/**
 * The gateway's connection to the Redis that its cluster shares. No request depends on it: after the timeout, or at once
 * while Redis is known to be slow or unavailable, the result is null and the node decides on its own. Each node announces
 * itself in Redis, so that all know their number.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis, Result } from 'ioredis'
import type { RedisOptions } from '../../../../config/schema.ts'
import { onFirstUse } from '../../../on-first-use.ts'
import type { Algorithm, Quota } from './algorithms.ts'
import { algorithms } from './algorithms.ts'
import { limitScript, nodesScript } from './redis-script.ts'

const ioredis = onFirstUse<typeof import('ioredis')>('ioredis')

declare module 'ioredis' {
  interface RedisCommander<Context> {
    jingweiLimit(numberOfKeys: number, ...args: (string | number)[]): Result<number[], Context>
    jingweiNodes(key: string, node: string, lifetime: number): Result<number, Context>
  }
}

/** Question about one limit. */
export interface Ask {
  readonly key: string
  readonly algorithm: Algorithm
  readonly quota: Quota
  /** Units that the request needs. */
  readonly cost: number
  /** Units to take if there are as many: `cost`, or more for the next requests. */
  readonly wanted: number
  /** True if it takes nothing, and lets the others take, where it would refuse. */
  readonly isShadow: boolean
}

/** State of one limit after the question. Times are in milliseconds. */
export interface Answer {
  /** Units that were taken; 0 if any of the limits that were asked for together refuses. */
  readonly taken: number
  readonly remaining: number
  readonly reset: number
  /** Time until this limit has the units; 0 if it has them. */
  readonly wait: number
}

const probeInterval = 500
/** Time without a response after which the connection is replaced. */
const deadAfter = 5000
/** Period in which a node announces itself, and the time after which a node that does not is taken for ended. */
const announceEvery = 5000
const nodeLifetime = 15_000
const nodesKey = 'jingwei:rl-nodes'

export class RedisLink {
  readonly #client: Redis
  readonly #timeout: number
  readonly #log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  #suspended = false
  #reported = false
  #closed = false
  #nodes = 0
  readonly #id = randomUUID()
  #announce: NodeJS.Timeout | undefined
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
      scripts: { jingweiLimit: { lua: limitScript }, jingweiNodes: { lua: nodesScript, numberOfKeys: 1 } }
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

  /** Number of nodes when Redis last responded; 0 if it never did. */
  get nodes(): number {
    return this.#nodes
  }

  /** Starts to connect, and reconnects until `close`. */
  connect(): void {
    if (this.#client.status === 'wait') this.#client.connect().catch(() => {})
  }

  close(): void {
    this.#closed = true
    clearInterval(this.#announce)
    clearTimeout(this.#probe)
    clearTimeout(this.#watch)
    if (this.isUp) this.#client.zrem(nodesKey, this.#id).catch(() => {})
    this.#client.disconnect()
  }

  /**
   * Takes the units of all limits, or of none if one of them refuses. Calls back within the timeout; with null if the node is
   * to decide on its own. `isForced`: takes them in any case, for units that are used already.
   */
  ask(asks: readonly Ask[], isForced: boolean, done: (answers: Answer[] | null) => void): void {
    if (!this.isUp) {
      done(null)
      return
    }
    let open = true
    const settle = (answers: Answer[] | null, error?: Error): void => {
      if (!open) return
      open = false
      clearTimeout(timer)
      if (error) this.#suspend(error)
      done(answers)
    }
    // setImmediate: if this process was busy, the response may already be in the kernel, and is read first.
    const timer = setTimeout(() => {
      setImmediate(() => settle(null, new Error(`no response within ${this.#timeout} ms`)))
    }, this.#timeout)
    this.#send(asks, isForced).then(
      (answers) => settle(answers),
      (error: Error) => settle(null, error)
    )
  }

  async #send(asks: readonly Ask[], isForced: boolean): Promise<Answer[]> {
    const args: (string | number)[] = asks.map(({ key }) => key)
    args.push(isForced ? 1 : 0)
    for (const { algorithm, quota, cost, wanted, isShadow } of asks) {
      args.push(algorithm.tag, quota.max, quota.window, quota.burst, cost, wanted, isShadow ? 1 : 0)
    }
    const numbers = await this.#client.jingweiLimit(asks.length, ...args)
    return asks.map((_, i) => {
      const [taken, remaining, reset, wait] = numbers.slice(i * 4) as [number, number, number, number]
      return { taken, remaining, reset, wait }
    })
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
      const quota = { max: 1, burst: 1, window: 1000 }
      await this.#send(
        [{ key: 'jingwei:probe', algorithm: algorithms['fixed-window'], quota, cost: 1, wanted: 1, isShadow: false }],
        true
      )
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
    this.#countNodes()
    this.#announce ??= setInterval(() => this.#countNodes(), announceEvery).unref()
    if (this.#reported) this.#log.info('Redis responds again: rate limits are shared with the other nodes')
    this.#reported = false
  }

  /** Announces this node. On failure, the last known number of nodes stays. */
  #countNodes(): void {
    if (!this.isUp) return
    this.#client.jingweiNodes(nodesKey, this.#id, nodeLifetime).then(
      (nodes) => {
        this.#nodes = nodes
      },
      () => {}
    )
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
