/**
 * The gateway's connection to the Redis that its cluster shares. No request depends on it: after the timeout, or at once
 * while Redis is known to be slow or unavailable, the result is null and the node decides on its own. Each node announces
 * itself in Redis, so that all know their number.
 */
import { randomUUID } from 'node:crypto'
import type { FastifyBaseLogger } from 'fastify'
import type { Redis, Result } from 'ioredis'
import type { RedisOptions } from '../../../../config/schema.ts'
import { RedisConnection } from '../../redis-connection.ts'
import type { Algorithm, Quota } from './algorithms.ts'
import { algorithms } from './algorithms.ts'
import { limitScript, nodesScript } from './redis-script.ts'

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

/** Period in which a node announces itself, and the time after which a node that does not is taken for ended. */
const announceEvery = 5000
const nodeLifetime = 15_000
const nodesKey = 'jingwei:rl-nodes'

const quotaOfProbe = { max: 1, burst: 1, window: 1000 }
const asksOfProbe: readonly Ask[] = [
  {
    key: 'jingwei:probe',
    algorithm: algorithms['fixed-window'],
    quota: quotaOfProbe,
    cost: 1,
    wanted: 1,
    isShadow: false
  }
]

export class RedisLink {
  readonly #connection: RedisConnection
  #nodes = 0
  readonly #id = randomUUID()
  #announce: NodeJS.Timeout | undefined

  constructor(options: RedisOptions, log: Pick<FastifyBaseLogger, 'info' | 'warn'>) {
    const facts = {
      scripts: { jingweiLimit: { lua: limitScript }, jingweiNodes: { lua: nodesScript, numberOfKeys: 1 } },
      // The command of requests, so that a Redis which responds but cannot write stays suspended.
      probe: (client: Redis) => send(client, asksOfProbe, true),
      suspendsOnErrors: true,
      timeoutsToSuspend: 1,
      onUp: () => this.#onUp(),
      messages: {
        down: 'Redis is unavailable: this node applies rate limits on its own',
        up: 'Redis responds again: rate limits are shared with the other nodes'
      }
    }
    this.#connection = new RedisConnection(options, facts, log)
  }

  /** True while Redis is connected and responds in time. */
  get isUp(): boolean {
    return this.#connection.isUp
  }

  /** Number of nodes when Redis last responded; 0 if it never did. */
  get nodes(): number {
    return this.#nodes
  }

  /** Starts to connect, and reconnects until `close`. */
  connect(): void {
    this.#connection.connect()
  }

  close(): void {
    clearInterval(this.#announce)
    if (this.isUp) this.#connection.client.zrem(nodesKey, this.#id).catch(() => {})
    this.#connection.close()
  }

  /**
   * Takes the units of all limits, or of none if one of them refuses. Calls back within the timeout; with null if the node is
   * to decide on its own. `isForced`: takes them in any case, for units that are used already.
   */
  ask(asks: readonly Ask[], isForced: boolean, done: (answers: Answer[] | null) => void): void {
    this.#connection.run((client) => send(client, asks, isForced), done)
  }

  #onUp(): void {
    this.#countNodes()
    this.#announce ??= setInterval(() => this.#countNodes(), announceEvery).unref()
  }

  /** Announces this node. On failure, the last known number of nodes stays. */
  #countNodes(): void {
    if (!this.isUp) return
    this.#connection.client.jingweiNodes(nodesKey, this.#id, nodeLifetime).then(
      (nodes) => {
        this.#nodes = nodes
      },
      () => {}
    )
  }
}

async function send(client: Redis, asks: readonly Ask[], isForced: boolean): Promise<Answer[]> {
  const args: (string | number)[] = asks.map(({ key }) => key)
  args.push(isForced ? 1 : 0)
  for (const { algorithm, quota, cost, wanted, isShadow } of asks) {
    args.push(algorithm.tag, quota.max, quota.window, quota.burst, cost, wanted, isShadow ? 1 : 0)
  }
  const numbers = await client.jingweiLimit(asks.length, ...args)
  return asks.map((_, i) => {
    const [taken, remaining, reset, wait] = numbers.slice(i * 4) as [number, number, number, number]
    return { taken, remaining, reset, wait }
  })
}
