import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { RetryOptions } from '../../../config/schema.ts'
import type { Call } from '../call.ts'
import { classify } from '../errors.ts'
import { ForwardingHandler } from '../handler.ts'
import type { Layer } from '../layer.ts'
import type { Service } from '../service.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions, Surroundings } from '../types.ts'

/** An answer that is thrown away is read up to this size and for this long, to keep its connection; then it is cut. */
const discardBytes = 64 * 1024
const discardMs = 1000

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
  const count = (reason: string, by = 1) => counter?.labels(service.name, reason).inc(by)
  // There from the start: a rate() cannot see the first step of a series that begins with it.
  for (const reason of rules.reasons) count(reason, 0)
  const { now, random } = around
  const context = { service, options, rules, count, timeoutMs: policy.timeout, now, random }
  return (dispatch) => (opts, handler) => {
    service.retryBudget.call(opts.call!.startedMs)
    return dispatch(opts, new RetryHandler(handler, opts, dispatch, context, 0))
  }
}

interface Rules {
  failures: ReadonlySet<string>
  methods: ReadonlySet<string>
  status: (status: number) => boolean
  /** Those that are known before one comes. */
  reasons: readonly string[]
}

function compile(options: RetryOptions): Rules {
  const on = new Set(options.on)
  const gateway = on.has('gateway-error')
  // As in Envoy: no answer is what the caller would see as 502 or 504.
  const unanswered = gateway || on.has('5xx') ? ['connect-failure', 'refused-stream', 'reset', 'timeout'] : []
  const failures = new Set([...on, ...unanswered].filter((item) => typeof item === 'string'))
  return {
    failures,
    reasons: [...failures].filter((item) => item !== 'gateway-error' && item !== '5xx'),
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
  timeoutMs: number
  now: Surroundings['now']
  random: Surroundings['random']
}

/** One attempt's; a retry gets its own, so that what is left of the answer before cannot reach it. */
class RetryHandler extends ForwardingHandler {
  readonly #opts: DispatchOptions
  readonly #call: Call
  readonly #dispatch: Dispatch
  readonly #context: Context
  readonly #retries: number
  /** The request may be on the wire, and a stream of it begun. */
  #sent = false
  #passedOn = false
  /** Bytes read of an answer that is being thrown away; -1 when none is. */
  #discarded = -1
  #discardTimer: NodeJS.Timeout | undefined

  constructor(next: DispatchHandler, opts: DispatchOptions, dispatch: Dispatch, context: Context, retries: number) {
    super(next)
    this.#opts = opts
    this.#call = opts.call!
    this.#dispatch = dispatch
    this.#context = context
    this.#retries = retries
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#sent = true
    this.next.onRequestStart?.(controller, context)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#passedOn = true
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) {
      const { rules } = this.#context
      const wanted = rules.status(status) && rules.methods.has(this.#opts.method)
      if (wanted && this.#possible()) {
        const waitMs = retryAfterMs(headers['retry-after'])
        // A service that asks for more patience than the call has left gets no retry.
        if (waitMs < this.#leftMs() && this.#affordable()) {
          this.#discard(controller)
          this.#schedule(String(status), waitMs)
          return
        }
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
    clearTimeout(this.#discardTimer)
    if (this.#discarded < 0) this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    clearTimeout(this.#discardTimer)
    if (this.#discarded >= 0) return
    const failure = classify(error, this.#sent)
    const { rules } = this.#context
    // Nothing was sent: any method may go elsewhere, and no service had work of it, so it costs no budget.
    const unsent = failure === 'refused-stream' || (!this.#sent && failure !== 'other')
    const wanted = rules.failures.has(failure) && (unsent || rules.methods.has(this.#opts.method))
    if (!this.#passedOn && wanted && this.#possible(failure === 'connect-failure') && (unsent || this.#affordable())) {
      this.#schedule(failure, 0)
    } else this.next.onResponseError?.(controller, error)
  }

  /** Reads on to the end of an answer that nobody gets, also where the caller had paused. */
  #discard(controller: DispatchController): void {
    this.#discarded = 0
    this.#discardTimer = setTimeout(() => controller.abort(new Error('discarded')), discardMs)
    this.#call.letGo()
    controller.resume()
  }

  #possible(unbegun = false): boolean {
    const { aborted, over } = this.#call
    if (aborted || over || this.#retries >= this.#context.options.attempts) return false
    return replayable(this.#opts.body, unbegun)
  }

  #leftMs(): number {
    return this.#call.startedMs + this.#context.timeoutMs - this.#context.now()
  }

  #affordable(): boolean {
    const { options, service, now } = this.#context
    return service.retryBudget.take(options.budget, now())
  }

  #schedule(reason: string, leastMs: number): void {
    const { options, random } = this.#context
    const call = this.#call
    call.tried ??= new Set()
    if (call.selected !== null) call.tried.add(call.selected.endpoint)
    // Exponential, with full jitter.
    const pauseMs = Math.min(options.backoff.max, options.backoff.base * 2 ** this.#retries) * random()
    this.#context.count(reason)
    const pause = setTimeout(() => this.#again(), leastMs + pauseMs)
    call.whenOver(() => clearTimeout(pause))
  }

  #again(): void {
    const handler = new RetryHandler(this.next, this.#opts, this.#dispatch, this.#context, this.#retries + 1)
    this.#dispatch(this.#opts, handler)
  }
}

/**
 * Nothing, bytes in memory, or a stream that is `unbegun`. Its own word that nobody read it would not do: undici may
 * have begun to, or may still hold it for a connection that comes too late.
 */
function replayable(body: DispatchOptions['body'], unbegun: boolean): boolean {
  if (body === null || body === undefined || typeof body === 'string') return true
  if (ArrayBuffer.isView(body) || body instanceof ArrayBuffer) return true
  return unbegun && !('destroyed' in body && body.destroyed)
}

/** RFC 9110, 10.2.3: seconds or a date. */
function retryAfterMs(value: string | string[] | undefined): number {
  if (typeof value !== 'string') return 0
  const waitMs = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return waitMs > 0 ? waitMs : 0
}
