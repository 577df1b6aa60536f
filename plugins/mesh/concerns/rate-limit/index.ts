import type { Timer, Timers } from '../../../clock.ts'
import { systemTimers } from '../../../clock.ts'
import type { MeshConcern } from '../../concern.ts'
import { MeshError } from '../../core/errors.ts'
import type { Layer } from '../../core/layer.ts'
import type { Count } from '../../core/metrics.ts'
import { counterOf, shadowCounter } from '../../core/metrics.ts'
import type { Service } from '../../core/service.ts'
import type { ServiceState } from '../../core/service-state.ts'
import { StateKey } from '../../core/service-state.ts'
import { TokenBucket } from '../../core/token-bucket.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, MeshDeps } from '../../core/types.ts'
import { WaitQueue } from '../../core/waiting.ts'
import type { LimitOptions } from './options.ts'
import { limitKey } from './options.ts'

const limiterKey = new StateKey<Limiter>('rate-limit')

/** Limits the rate of attempts at a service by a token bucket, for all callers together. */
export const rateLimit: Layer = (service, { limit: options }) => {
  if (!options) return null
  const limiter = service.state(limiterKey, (deps) => new Limiter(service, options, deps))
  if (options.mode === 'shadow') {
    return (dispatch) => (opts, handler) => {
      limiter.watch()
      return dispatch(opts, handler)
    }
  }
  return (dispatch) => (opts, handler) => limiter.admit(dispatch, opts, handler)
}

class Limiter implements ServiceState {
  readonly #service: string
  readonly #options: LimitOptions
  readonly #bucket: TokenBucket
  readonly #queue: WaitQueue
  readonly #count: Readonly<Record<'queued' | 'refused', Count>>
  readonly #shadowed: Count
  /** Timer for the first attempt in the queue; undefined while the queue is empty. */
  #timer: Timer | undefined
  readonly #timers: Timers

  constructor({ name }: Service, options: LimitOptions, { now, meter, timers = systemTimers }: MeshDeps) {
    this.#timers = timers
    const { mode, rate, per, burst = rate } = options
    this.#service = name
    this.#options = options
    this.#bucket = new TokenBucket(burst, per / rate, now)
    this.#queue = new WaitQueue(now, () => this.#whenLeft())
    const limited = {
      name: 'jingwei_mesh_limited_total',
      help: 'Attempts beyond the rate limit toward a service, by outcome.'
    }
    const countOf = (outcome: string) => counterOf(meter, limited, { service: name, outcome })
    this.#count = { queued: countOf('queued'), refused: countOf('refused') }
    this.#shadowed = mode === 'shadow' ? shadowCounter(meter, name, 'rate-limit') : () => {}
  }

  admit(dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): boolean {
    const bucket = this.#bucket
    const waitMs = bucket.waitMs()
    if (waitMs === 0) {
      // The timer is late: the first in the queue goes before this call.
      if (this.#queue.size > 0) this.#next()
      bucket.take()
      return dispatch(opts, handler)
    }
    if (this.#isTooLong(waitMs, this.#queue.size)) {
      this.#count.refused()
      handler.onResponseError?.(opts.call!, new MeshError('JW_UPSTREAM_LIMITED', this.#service, waitMs))
      return true
    }
    this.#count.queued()
    bucket.take()
    this.#queue.join(dispatch, opts, handler)
    this.#arm()
    return true
  }

  /** Returns whether to refuse an attempt at once: the rate is known, so its wait is known in advance. */
  #isTooLong(waitMs: number, waiting: number): boolean {
    return waiting >= this.#options.queue || waitMs > this.#options.queueTimeout
  }

  /** Counts in shadow mode: takes a token even if the attempt would have been queued for it. */
  watch(): void {
    const waitMs = this.#bucket.waitMs()
    if (waitMs > 0 && this.#isTooLong(waitMs, this.#promised())) this.#shadowed()
    else this.#bucket.take()
  }

  #promised(): number {
    return Math.max(0, Math.ceil(-this.#bucket.tokens))
  }

  #arm(): void {
    this.#timer ??= this.#timers.setTimeout(() => this.#next(), Math.ceil(this.#bucket.waitMs(this.#queue.size)))
  }

  #next(): void {
    this.#timers.clearTimeout(this.#timer)
    this.#timer = undefined
    while (this.#queue.size > 0 && this.#bucket.waitMs(this.#queue.size) === 0) {
      const { dispatch, opts, handler } = this.#queue.next()!
      dispatch(opts, handler)
    }
    if (this.#queue.size > 0) this.#arm()
  }

  #whenLeft(): void {
    this.#bucket.giveBack()
    if (this.#queue.size > 0) return
    this.#timers.clearTimeout(this.#timer)
    this.#timer = undefined
  }

  status() {
    const { mode, rate, per, burst = rate } = this.#options
    const tokens = Math.max(0, Math.floor(this.#bucket.tokens))
    const pending = mode === 'shadow' ? this.#promised() : this.#queue.size
    return { mode, rate, perMs: per, burst, tokens, pending }
  }
}

export default { name: 'rate-limit', keys: [limitKey], layer: rateLimit } satisfies MeshConcern
