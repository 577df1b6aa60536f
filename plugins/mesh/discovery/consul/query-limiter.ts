/**
 * Limits the concurrent blocking queries when the Consul agent has too few connections. Each service holds one
 * connection with its query; an agent allows 200 per client address unless `limits.http_max_conns_per_client` is set.
 * It refuses more with a 429 or by closing the connection. Then the services share the connections: fewer queries run
 * at a time than the agent allows, each for a short time, so that every service is queried every few seconds.
 *
 * A cancelled query frees its connection only when the agent would have responded. So none is cancelled, and until it
 * is known whether there is a connection for each service, many queries are held only for a short time.
 */
import type http from 'node:http'
import type { Logger } from '../../core/types.ts'
import type { QueryResult, RunQuery, ServiceQuery } from '../consul-query.ts'
import { ConsulConnectionLimit, RAISE_LIMIT } from '../consul-query.ts'
import { pause } from '../loop.ts'

/** Changed by tests only. */
export const queryLimiterTiming = {
  /** Time for which Consul holds a query while services share connections. */
  turn: 2000,
  /** Time for which Consul holds a query, and how long this applies, while the limit of connections is unknown. */
  trial: 5000,
  trialFor: 30_000,
  /** Number of concurrent queries above which resets can mean that the limit is reached. */
  many: 32,
  /** Time after the query within which a reset can mean that the connection was refused. */
  early: 1000,
  /** Number of such resets within `recent`, while many queries run, that show that the limit is reached. */
  times: 3,
  recent: 10_000,
  /** Time to wait for further queries that fail together with one, also of an agent that stops. */
  settle: 100,
  /** Time after which all services hold a connection again; doubled each time that this fails, up to the longest. */
  retry: 300_000,
  longestRetry: 3_600_000
}

/** Most idle connections: few while services share connections, else Node's own default. */
const spare = { turns: 8, otherwise: 256 }

export class QueryLimiter {
  readonly #agent: http.Agent
  readonly #log: Logger
  readonly #now: () => number
  readonly #timing: typeof queryLimiterTiming
  readonly #queue: { grant: () => void }[] = []
  /** Number of running queries. */
  #taken = 0
  /** Most queries that may run at a time; null: no limit. */
  #limit: number | null = null
  #limitedAt = Number.NEGATIVE_INFINITY
  #trialEnds: number
  #warned = false
  #retry: number
  #timer: NodeJS.Timeout | undefined
  #resets: number[] = []

  constructor(agent: http.Agent, log: Logger, now: () => number, timing = queryLimiterTiming) {
    this.#agent = agent
    this.#log = log
    this.#now = now
    this.#timing = timing
    this.#retry = timing.retry
    this.#trialEnds = now() + timing.trialFor
  }

  /** Returns the query function with this limit. */
  wrap(ask: RunQuery): RunQuery {
    return async (query, signal) => {
      await this.#admit(signal)
      return this.#ask(ask, query, signal)
    }
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  async #admit(signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    if (this.#limit === null || this.#taken < this.#limit) {
      this.#taken++
      return
    }
    const { promise, resolve: grant, reject } = Promise.withResolvers<void>()
    const waiting = { grant }
    this.#queue.push(waiting)
    const onAbort = () => {
      const place = this.#queue.indexOf(waiting)
      if (place < 0) return
      this.#queue.splice(place, 1)
      reject(signal.reason)
    }
    signal.addEventListener('abort', onAbort, { once: true })
    await promise.finally(() => signal.removeEventListener('abort', onAbort))
  }

  #next(): void {
    while (this.#queue.length > 0 && (this.#limit === null || this.#taken < this.#limit)) {
      this.#taken++
      this.#queue.shift()!.grant()
    }
  }

  async #ask(ask: RunQuery, query: ServiceQuery, signal: AbortSignal): Promise<QueryResult> {
    const began = this.#now()
    try {
      return await ask({ ...query, wait: Math.min(query.wait, this.#longest()) }, signal)
    } catch (error) {
      if (!(await this.#isLimitReached(error, began, signal))) throw error
      this.#lowerLimit()
      // An immediate retry would be refused as well.
      await pause(this.#timing.turn, signal)
      throw error instanceof ConsulConnectionLimit
        ? error
        : new ConsulConnectionLimit(`Consul closed the connection (${RAISE_LIMIT})`)
    } finally {
      this.#taken--
      this.#next()
    }
  }

  #longest(): number {
    const { turn, trial, many } = this.#timing
    if (this.#limit !== null) return turn
    return this.#taken >= many && this.#now() < this.#trialEnds ? trial : Number.POSITIVE_INFINITY
  }

  async #isLimitReached(error: unknown, began: number, signal: AbortSignal): Promise<boolean> {
    const { early, times, recent, many, settle } = this.#timing
    const isExplicit = error instanceof ConsulConnectionLimit
    if (!isExplicit) {
      const { code } = error as { code?: string }
      const now = this.#now()
      if ((code !== 'ECONNRESET' && code !== 'EPIPE') || now - began > early) return false
      this.#resets = [...this.#resets.filter((at) => at > now - recent), now]
    }
    // Wait until queries that were refused together with this one have ended as well.
    this.#taken--
    await pause(settle, signal)
    this.#taken++
    if (signal.aborted) return false
    return isExplicit || (this.#resets.length >= times && this.#taken > many)
  }

  #lowerLimit(): void {
    const { turn } = this.#timing
    // Many queries are refused at once, for one reason: lower the limit only once.
    if (this.#now() - this.#limitedAt <= turn + this.#timing.early) return
    this.#limitedAt = this.#now()
    if (!this.#warned) {
      const message = `Consul agent refuses more connections; services now share them and changes arrive late: ${RAISE_LIMIT}`
      this.#log.warn({ held: this.#taken - 1 }, message)
    }
    this.#warned = true
    if (this.#limit === null) {
      this.#scheduleRetry()
      this.#closeIdle()
    }
    this.#limit = Math.max(1, Math.floor(Math.min(this.#taken - 1, this.#limit ?? Number.POSITIVE_INFINITY) * 0.75))
  }

  /** Closes idle connections, which count towards the limit of this client address. */
  #closeIdle(): void {
    this.#agent.maxFreeSockets = spare.turns
    for (const sockets of Object.values(this.#agent.freeSockets)) {
      for (const socket of [...(sockets ?? [])]) socket.destroy()
    }
  }

  /** Removes the limit after a while, because the agent may then allow more connections. */
  #scheduleRetry(): void {
    const { longestRetry, trialFor, retry } = this.#timing
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#limit = null
      this.#agent.maxFreeSockets = spare.otherwise
      this.#trialEnds = this.#now() + trialFor
      this.#next()
      this.#timer = setTimeout(() => {
        this.#warned = false
        this.#retry = retry
        this.#log.info({}, 'Consul agent accepts a connection for each service again; services no longer share them')
      }, trialFor).unref()
    }, this.#retry).unref()
    this.#retry = Math.min(this.#retry * 2, longestRetry)
  }
}
