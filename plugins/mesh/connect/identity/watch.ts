/**
 * Repeats one query to Consul: as a blocking query if Consul supports that for its path, else at an interval. The loop
 * survives every error, with a backoff.
 */

import { TokenBucket } from '../../core/token-bucket.ts'
import type { MeshDeps } from '../../core/types.ts'
import { blocking, indexOf } from '../../discovery/consul-blocking.ts'
import type { Get } from '../../discovery/consul-get.ts'
import type { ConsulOptions } from '../../discovery/consul-options.ts'
import { backoff, pause } from '../../discovery/loop.ts'

/** Changed by tests only. */
const watchTiming = {
  /** Most consecutive queries without a pause, and the interval of further ones if Consul does not hold them. */
  burst: 5,
  interval: 1000,
  /** Time that Consul may take to respond, besides the time for which it holds the query. */
  answer: 10_000
}

interface WatchQuery {
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  /** Permission that the token needs, for the error message. */
  readonly permission: string
  /** Interval of queries that Consul does not hold. */
  readonly every: number
  /** Processes a result; throws if it is malformed, which counts as a failure. */
  take(body: unknown): void | Promise<void>
  failed(error: unknown): void
}

export class Watch {
  readonly #query: WatchQuery
  readonly #get: Get
  readonly #wait: number
  readonly #deps: Pick<MeshDeps, 'now' | 'random'>
  readonly #abort = new AbortController()
  #running: Promise<void> | null = null
  #index: bigint | null = null

  constructor(
    query: WatchQuery,
    get: Get,
    { wait }: Pick<ConsulOptions, 'wait'>,
    deps: Pick<MeshDeps, 'now' | 'random'>
  ) {
    this.#query = query
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
    const { every, failed } = this.#query
    const bucket = new TokenBucket(watchTiming.burst, watchTiming.interval, now)
    let failures = 0
    while (!signal.aborted) {
      await pause(bucket.reserve(), signal)
      if (signal.aborted) return
      try {
        await this.#ask()
        failures = 0
        // With jitter, so that gateways which started together do not query in step.
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
    const { path, query, permission, take } = this.#query
    const { answer } = watchTiming
    const { query: held, timeout } = blocking(this.#index, this.#wait, answer, answer)
    const { signal } = this.#abort
    const { response, body } = await this.#get(path, { ...query, ...held }, { timeout, signal, permission })
    if (signal.aborted) return
    const index = indexOf(response)
    // An index that goes backwards indicates a restored or restarted server: start over without an index.
    this.#index = index !== null && this.#index !== null && index < this.#index ? null : index
    await take(body)
  }
}
