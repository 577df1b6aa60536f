/**
 * A source for one function that watches a registry. It provides what all such sources have in common: retries with backoff
 * and jitter, limits of time and rate, the last known instances during a failure, and status, counters and log lines.
 */
import { asError } from '../../thrown.ts'
import { TokenBucket } from '../core/token-bucket.ts'
import type { InstanceSpec, MeshDeps, SourceStatus } from '../core/types.ts'
import type { SourceContext } from './contract.ts'
import type { DiscoveryCounters, Publish, Restorable } from './loop.ts'
import { backoff, messageOf, Publisher, pause } from './loop.ts'

/** Context of one run of the function. Its methods have no effect once the run has ended. */
export interface Watching {
  /** Aborted when the service ends, and when the run has timed out. */
  readonly signal: AbortSignal
  /** Publishes the whole set of instances, which also confirms that they are up to date. */
  publish(instances: readonly InstanceSpec[]): void
  /** Reports a failure from which the run recovers by itself. The last known instances stay in use. */
  fail(error: unknown): void
}

interface WatchedOptions {
  /** Kind of the source, for the status. */
  readonly kind: string
  readonly service: string
  /** Runs again `everyMs` after it has resolved, and after a backoff if it rejects. */
  watch(watching: Watching): Promise<void>
  readonly everyMs: number
  /** Longest time until the function has published, failed or ended. */
  readonly timeoutMs: number
  /** Time for which an empty set must last while instances are in use. */
  readonly emptyGraceMs: number
  /** True if the function is told of every change, so that the instances are up to date until a failure. */
  readonly isAlwaysFresh?: boolean
  /** Name of the registry for log lines; null if the function logs its failures itself. */
  readonly label: string | null
}

/** Changed by tests only. */
const watchedTiming = {
  /** Most sets and runs without a pause, and the interval of further ones. */
  burst: 5,
  interval: 1000,
  backoff: 200
}

/** Most runs that have timed out and do not end; no other starts until one of them has. */
const mostStuck = 3

export class WatchedSource implements Restorable {
  readonly #options: WatchedOptions
  readonly #deps: MeshDeps
  readonly #counters: DiscoveryCounters
  readonly #timing: typeof watchedTiming
  readonly #abort = new AbortController()
  readonly #stuck = new Set<Promise<void>>()
  /** Called when a run that has timed out ends, and when the source ends. */
  #onFreed: (() => void) | null = null
  #running: Promise<void> | null = null
  #publisher: Publisher | null = null
  #failures = 0
  #confirmedAt: number | null = null
  #error: string | null = null
  /** A set that waits for its turn, and its timer. */
  #pending: readonly InstanceSpec[] | null = null
  #timer: NodeJS.Timeout | undefined
  #emptyTimer: NodeJS.Timeout | undefined
  readonly #sets: TokenBucket

  constructor(options: WatchedOptions, { deps, counters }: SourceContext, timing = watchedTiming) {
    this.#options = options
    this.#deps = deps
    this.#counters = counters
    this.#timing = timing
    this.#sets = new TokenBucket(timing.burst, timing.interval, deps.now)
  }

  start(publish: Publish, restored?: readonly InstanceSpec[]): void {
    const { service } = this.#options
    this.#counters.begin(service)
    this.#publisher ??= new Publisher(publish, () => this.#counters.update(service), restored)
    this.#running ??= this.#run()
  }

  status(): SourceStatus {
    const { kind, isAlwaysFresh } = this.#options
    const isFresh = isAlwaysFresh && this.#error === null && this.#confirmedAt !== null
    return { kind, confirmedAt: isFresh ? this.#deps.now() : this.#confirmedAt, error: this.#error }
  }

  async close(): Promise<void> {
    this.#abort.abort()
    this.#onFreed?.()
    clearTimeout(this.#timer)
    clearTimeout(this.#emptyTimer)
    await this.#running
  }

  async #run(): Promise<void> {
    const { signal } = this.#abort
    const { burst, interval } = this.#timing
    const bucket = new TokenBucket(burst, interval, this.#deps.now)
    while (!signal.aborted) {
      await pause(bucket.reserve(), signal)
      if (this.#stuck.size >= mostStuck) await this.#freed()
      if (signal.aborted) return
      let delay = this.#options.everyMs * (0.9 + this.#deps.random() / 5)
      try {
        await this.#once()
      } catch (error) {
        if (signal.aborted) return
        this.#fail(error)
        delay = backoff(this.#failures, this.#deps.random, this.#timing.backoff)
      }
      await pause(delay, signal)
    }
  }

  /** Resolves when a run that has timed out ends, or the source. */
  async #freed(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#onFreed = resolve
    await promise
    this.#onFreed = null
  }

  /** Runs the function once. Rejects if it rejects, times out, or ends without a result. */
  async #once(): Promise<void> {
    const { watch, timeoutMs } = this.#options
    const run = new AbortController()
    const { signal } = run
    const { promise: end, resolve, reject } = Promise.withResolvers<void>()
    const onClose = () => {
      run.abort()
      resolve()
    }
    this.#abort.signal.addEventListener('abort', onClose, { once: true })
    const timer = setTimeout(() => reject(new Error(`no response within ${timeoutMs / 1000} s`)), timeoutMs)
    let hasResult = false
    const inRun =
      <T>(act: (value: T) => void) =>
      (value: T) => {
        if (signal.aborted) return
        clearTimeout(timer)
        hasResult = true
        act(value)
      }
    const watching = { signal, publish: inRun(this.#take.bind(this)), fail: inRun(this.#fail.bind(this)) }
    // In a promise, so that an error that is thrown at once is a rejection as well.
    const running = new Promise<void>((start) => start(watch(watching)))
    const ended = running.then(
      () => {},
      () => {}
    )
    this.#stuck.add(ended)
    void ended.then(() => {
      this.#stuck.delete(ended)
      this.#onFreed?.()
    })
    try {
      await Promise.race([running, end])
      if (!hasResult && !signal.aborted) throw new Error('it ended without a result')
    } finally {
      clearTimeout(timer)
      // The signal of the source outlives all runs: a listener that stays would keep what this run has used.
      this.#abort.signal.removeEventListener('abort', onClose)
      run.abort()
    }
  }

  #take(instances: readonly InstanceSpec[]): void {
    const { label, service, emptyGraceMs } = this.#options
    if (this.#failures > 0 && label !== null) this.#deps.log.info({ service }, `${label} available again`)
    this.#failures = 0
    if (instances.length === 0 && emptyGraceMs > 0 && this.#publisher!.serving) {
      this.#error = 'the registry lists no instance; the last ones stay in use until that is confirmed'
      this.#pending = null
      this.#emptyTimer ??= setTimeout(() => {
        this.#confirmEmpty()
      }, emptyGraceMs)
      return
    }
    this.#forgetEmpty()
    this.#confirmedAt = this.#deps.now()
    this.#error = null
    this.#offer(instances)
  }

  #confirmEmpty(): void {
    this.#forgetEmpty()
    this.#confirmedAt = this.#deps.now()
    this.#error = null
    this.#offer([])
  }

  #forgetEmpty(): void {
    clearTimeout(this.#emptyTimer)
    this.#emptyTimer = undefined
  }

  /** Publishes a set, or the latest one after a pause if they come too often. */
  #offer(instances: readonly InstanceSpec[]): void {
    const isWaiting = this.#pending !== null
    this.#pending = instances
    if (isWaiting) return
    const waitMs = this.#publisher!.differs(instances) ? this.#sets.reserve() : 0
    if (waitMs === 0) this.#publishPending()
    else this.#timer = setTimeout(() => this.#publishPending(), waitMs)
  }

  #publishPending(): void {
    const instances = this.#pending
    this.#pending = null
    if (instances !== null) this.#publisher!.offer(instances)
  }

  #fail(thrown: unknown): void {
    const error = asError(thrown)
    this.#error = messageOf(error)
    this.#forgetEmpty()
    const { label, service } = this.#options
    this.#counters.error(service)
    if (++this.#failures > 1 || label === null) return
    const consequence = this.#publisher!.serving
      ? 'keeps the instances last known'
      : 'has no instances, so it responds with 503 until then'
    this.#deps.log.warn({ service, err: error }, `${label} unavailable; service ${service} ${consequence}`)
  }
}
