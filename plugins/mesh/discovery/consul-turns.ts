/**
 * Each service holds a connection to Consul's agent with its question, and an agent allows an address 200 of them
 * unless `limits.http_max_conns_per_client` says otherwise; what is more it answers with 429 or by closing the
 * connection at once. Then the services take turns: fewer questions than there were connections to be had are held,
 * for a short time each, so that every service is asked every few seconds and none goes without an answer.
 *
 * A question that is called off frees its connection only when the agent would have answered it. Hence none is, and
 * as long as it is not known whether all find a place, many questions are not held for long.
 */
import type http from 'node:http'
import type { Logger } from '../core/types.ts'
import type { Answer, Ask, Question } from './consul-ask.ts'
import { ConsulCrowded, CROWDED } from './consul-ask.ts'
import { pause } from './loop.ts'

/** Changed by tests only. */
export const turnsTiming = {
  /** Time for which Consul holds a query while services take turns. */
  turn: 2000,
  /** Time for which it holds one, and end of that, while it is unknown whether there is a connection for each service. */
  trial: 5000,
  trialFor: 30_000,
  /** So many questions are many. An agent that takes fewer connections has its reasons. */
  many: 32,
  /** A connection that is reset within this time of the question was perhaps never taken. */
  early: 1000,
  /** So many of these within `recent`, while many others live, are no accident. */
  times: 3,
  recent: 10_000,
  /** Time in which the other queries that are refused, or that a dying agent held, may be closed too. */
  settle: 100,
  /** When all try to hold their questions again; doubled each time that this fails, up to the longest. */
  retry: 300_000,
  longestRetry: 3_600_000
}

/** Connections that wait for the next question. Without turns as many as Node keeps by itself. */
const spare = { turns: 8, otherwise: 256 }

export class Turns {
  readonly #agent: http.Agent
  readonly #log: Logger
  readonly #now: () => number
  readonly #timing: typeof turnsTiming
  readonly #queue: { grant: () => void }[] = []
  /** Questions under way. */
  #taken = 0
  /** Questions that may be under way at a time; null: all. */
  #limit: number | null = null
  #limitedAt = Number.NEGATIVE_INFINITY
  #trialEnds: number
  #told = false
  #retry: number
  #timer: NodeJS.Timeout | undefined
  #resets: number[] = []

  constructor(agent: http.Agent, log: Logger, now: () => number, timing = turnsTiming) {
    this.#agent = agent
    this.#log = log
    this.#now = now
    this.#timing = timing
    this.#retry = timing.retry
    this.#trialEnds = now() + timing.trialFor
  }

  /** The same, asked when it is its turn. */
  wrap(ask: Ask): Ask {
    return async (question, signal) => {
      await this.#turn(signal)
      return this.#ask(ask, question, signal)
    }
  }

  close(): void {
    clearTimeout(this.#timer)
  }

  async #turn(signal: AbortSignal): Promise<void> {
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

  async #ask(ask: Ask, question: Question, signal: AbortSignal): Promise<Answer> {
    const began = this.#now()
    try {
      return await ask({ ...question, wait: Math.min(question.wait, this.#longest()) }, signal)
    } catch (error) {
      if (!(await this.#isCrowded(error, began, signal))) throw error
      this.#crowded()
      // The next one would fare no better just now.
      await pause(this.#timing.turn, signal)
      throw error instanceof ConsulCrowded ? error : new ConsulCrowded(`Consul closed the connection (${CROWDED})`)
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

  async #isCrowded(error: unknown, began: number, signal: AbortSignal): Promise<boolean> {
    const { early, times, recent, many, settle } = this.#timing
    const told = error instanceof ConsulCrowded
    if (!told) {
      const { code } = error as { code?: string }
      const now = this.#now()
      if ((code !== 'ECONNRESET' && code !== 'EPIPE') || now - began > early) return false
      this.#resets = [...this.#resets.filter((at) => at > now - recent), now]
    }
    // Until then those that were refused with this one have left as well.
    this.#taken--
    await pause(settle, signal)
    this.#taken++
    if (signal.aborted) return false
    return told || (this.#resets.length >= times && this.#taken > many)
  }

  #crowded(): void {
    const { turn } = this.#timing
    // Many are refused at once, for one reason.
    if (this.#now() - this.#limitedAt <= turn + this.#timing.early) return
    this.#limitedAt = this.#now()
    if (!this.#told) {
      const message = `Consul agent refuses more connections; services now share them and changes arrive late: ${CROWDED}`
      this.#log.warn({ held: this.#taken - 1 }, message)
    }
    this.#told = true
    if (this.#limit === null) {
      this.#tryLater()
      this.#leaveRoom()
    }
    this.#limit = Math.max(1, Math.floor(Math.min(this.#taken - 1, this.#limit ?? Number.POSITIVE_INFINITY) * 0.75))
  }

  /** Others at this address ask Consul too, and idle connections count. */
  #leaveRoom(): void {
    this.#agent.maxFreeSockets = spare.turns
    for (const sockets of Object.values(this.#agent.freeSockets)) {
      for (const socket of [...(sockets ?? [])]) socket.destroy()
    }
  }

  /** Perhaps the agent will allow more by then. */
  #tryLater(): void {
    const { longestRetry, trialFor, retry } = this.#timing
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => {
      this.#limit = null
      this.#agent.maxFreeSockets = spare.otherwise
      this.#trialEnds = this.#now() + trialFor
      this.#next()
      this.#timer = setTimeout(() => {
        this.#told = false
        this.#retry = retry
        this.#log.info({}, 'Consul agent accepts a connection for each service again; services no longer share them')
      }, trialFor).unref()
    }, this.#retry).unref()
    this.#retry = Math.min(this.#retry * 2, longestRetry)
  }
}
