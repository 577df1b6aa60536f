/**
 * One question to Consul, asked for ever: held by Consul until the answer changes where that is possible, else again
 * after a while. Survives every error and never spins.
 */
import type { ConsulOptions } from '../../../../config/schema.ts'
import { TokenBucket } from '../../core/token-bucket.ts'
import type { MeshDeps } from '../../core/types.ts'
import { blocking, indexOf } from '../../discovery/consul-blocking.ts'
import type { Get } from '../../discovery/consul-get.ts'
import { backoff, pause } from '../../discovery/loop.ts'

/** Changed by tests only. */
export const watchTiming = {
  /** Questions that may follow each other at once, and how often they go on when Consul does not hold them. */
  burst: 5,
  interval: 1000,
  /** Time that Consul may take for a response that it has. */
  answer: 10_000
}

export interface Question {
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  /** Permission that the token needs. */
  readonly permission: string
  /** Between two questions that Consul does not hold. */
  readonly every: number
  /** Throws if the answer makes no sense; that is then a failure as any other. */
  take(body: unknown): void | Promise<void>
  failed(error: unknown): void
}

export class Watch {
  readonly #question: Question
  readonly #get: Get
  readonly #wait: number
  readonly #deps: MeshDeps
  readonly #abort = new AbortController()
  #running: Promise<void> | null = null
  #index: bigint | null = null

  constructor(question: Question, get: Get, { wait }: Pick<ConsulOptions, 'wait'>, deps: MeshDeps) {
    this.#question = question
    this.#get = get
    this.#wait = wait
    this.#deps = deps
  }

  get signal(): AbortSignal {
    return this.#abort.signal
  }

  start(): void {
    this.#running ??= this.#run()
  }

  async close(): Promise<void> {
    this.#abort.abort()
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    const { now, random } = this.#deps
    const { every, failed } = this.#question
    const bucket = new TokenBucket(watchTiming.burst, watchTiming.interval, now)
    let failures = 0
    while (!signal.aborted) {
      await pause(bucket.takeTurn(), signal)
      if (signal.aborted) return
      try {
        await this.#ask()
        failures = 0
        // Gateways that began together must not go on asking together.
        if (this.#index === null) await pause(every * (0.9 + random() / 5), signal)
      } catch (error) {
        if (signal.aborted) return
        this.#index = null
        failures++
        failed(error)
        await pause(backoff(failures, random), signal)
      }
    }
  }

  async #ask(): Promise<void> {
    const { path, query, permission, take } = this.#question
    const { answer } = watchTiming
    const { query: held, timeout } = blocking(this.#index, this.#wait, answer, answer)
    const { signal } = this.#abort
    const { response, body } = await this.#get(path, { ...query, ...held }, { timeout, signal, permission })
    if (signal.aborted) return
    const index = indexOf(response)
    // An index that goes backwards tells of a restored or restarted server: begin anew.
    this.#index = index !== null && this.#index !== null && index < this.#index ? null : index
    await take(body)
  }
}
