import type { IncomingHttpHeaders } from 'node:http'
import type { RetryOptions } from '../../../config/schema.ts'
import type { Call } from '../call.ts'
import { classify } from '../errors.ts'
import { ForwardingHandler } from '../handler.ts'
import type { Layer } from '../layer.ts'
import type { Service } from '../service.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions, Surroundings } from '../types.ts'

/** An answer that is thrown away is read up to this size, to keep its connection; a longer one is cut. */
const discardBytes = 64 * 1024
/** The budget never falls below this many retries at a time, or a quiet service could not retry at all. */
const leastBudget = 3

/**
 * Sends a failed attempt again, elsewhere: only before any of the response went to the caller, only what can
 * be sent twice, only within the service's budget. The last response is passed on, whatever it is.
 */
export const retry: Layer = (service, policy, around) => {
  const options = policy.retry
  if (options === false) return null
  const rules = compile(options)
  const counter = around.meter?.counter({
    name: 'jingwei_mesh_retries_total',
    help: 'Attempts made again, by what had failed.',
    labelNames: ['service', 'reason']
  })
  const count = (reason: string) => counter?.labels(service.name, reason).inc()
  const context = { service, options, rules, count, longestMs: policy.timeout, random: around.random }
  return (dispatch) => (opts, handler) => dispatch(opts, new RetryHandler(handler, opts, dispatch, context, 0))
}

interface Rules {
  failures: ReadonlySet<string>
  methods: ReadonlySet<string>
  status: (status: number) => boolean
}

function compile(options: RetryOptions): Rules {
  const on = new Set(options.on)
  const gateway = on.has('gateway-error')
  return {
    failures: new Set([...on].filter((item) => typeof item === 'string')),
    methods: new Set<string>(options.methods),
    status: (status) =>
      on.has(status) || (status >= 500 && (on.has('5xx') || (gateway && status >= 502 && status <= 504)))
  }
}

interface Context {
  service: Service
  options: RetryOptions
  rules: Rules
  count: (reason: string) => void
  /** A service that asks for more patience than the call has gets no retry. */
  longestMs: number
  random: Surroundings['random']
}

/** One attempt's; a retry gets its own, so that what is left of the answer before cannot reach it. */
class RetryHandler extends ForwardingHandler {
  readonly #opts: DispatchOptions
  readonly #call: Call
  readonly #dispatch: Dispatch
  readonly #context: Context
  readonly #retries: number
  #passedOn = false
  /** Bytes read of an answer that is being thrown away; -1 when none is. */
  #discarded = -1

  constructor(next: DispatchHandler, opts: DispatchOptions, dispatch: Dispatch, context: Context, retries: number) {
    super(next)
    this.#opts = opts
    this.#call = opts.call!
    this.#dispatch = dispatch
    this.#context = context
    this.#retries = retries
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) {
      const { rules, longestMs } = this.#context
      const waitMs = retryAfterMs(headers['retry-after'])
      if (rules.status(status) && rules.methods.has(this.#opts.method) && waitMs < longestMs && this.#allowed()) {
        this.#discarded = 0
        this.#schedule(String(status), waitMs)
        return
      }
      this.#passedOn = true
    }
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    if (this.#discarded < 0) {
      this.next.onResponseData?.(controller, chunk)
    } else {
      this.#discarded += chunk.length
      if (this.#discarded > discardBytes) controller.abort(new Error('discarded'))
    }
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (this.#discarded < 0) this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#discarded >= 0) return
    const failure = classify(error)
    const { rules } = this.#context
    const repeatable = failure === 'connect-failure' || rules.methods.has(this.#opts.method)
    if (!this.#passedOn && repeatable && rules.failures.has(failure) && this.#allowed()) this.#schedule(failure, 0)
    else this.next.onResponseError?.(controller, error)
  }

  #allowed(): boolean {
    const { options, service } = this.#context
    if (this.#call.aborted || this.#retries >= options.attempts || !replayable(this.#opts.body)) return false
    return this.#call.retrying || service.retrying < Math.max(leastBudget, service.active * options.budget)
  }

  #schedule(reason: string, leastMs: number): void {
    const { options, service, random } = this.#context
    const call = this.#call
    if (!call.retrying) {
      call.retrying = true
      service.retrying++
    }
    call.tried ??= new Set()
    if (call.selected !== null) call.tried.add(call.selected)
    // Exponential, with full jitter.
    const pauseMs = Math.min(options.backoff.max, options.backoff.base * 2 ** this.#retries) * random()
    this.#context.count(reason)
    call.backoff = setTimeout(() => this.#again(), Math.max(leastMs, pauseMs))
  }

  #again(): void {
    const handler = new RetryHandler(this.next, this.#opts, this.#dispatch, this.#context, this.#retries + 1)
    this.#dispatch(this.#opts, handler)
  }
}

/** Nothing, bytes in memory, or a stream that nobody has begun to read. */
function replayable(body: DispatchOptions['body']): boolean {
  if (body === null || body === undefined || typeof body === 'string' || ArrayBuffer.isView(body)) return true
  return 'readableDidRead' in body && !body.readableDidRead && !body.destroyed
}

/** RFC 9110, 10.2.3; only seconds, and the call's deadline bounds what a service may ask for. */
function retryAfterMs(value: string | string[] | undefined): number {
  const seconds = typeof value === 'string' ? Number(value) : Number.NaN
  return Number.isFinite(seconds) && seconds > 0 ? seconds * 1000 : 0
}
