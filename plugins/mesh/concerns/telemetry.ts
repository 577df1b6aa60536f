import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Meter } from '../../meter.ts'
import { AttemptUnneeded, classify } from '../core/errors.ts'
import { ForwardingHandler } from '../core/handlers/forwarding-handler.ts'
import type { Layer, LayerContext } from '../core/layer.ts'
import { counterOf } from '../core/metrics.ts'
import type { DispatchController, DispatchHandler } from '../core/types.ts'

type Histogram = ReturnType<ReturnType<Meter['histogram']>['labels']>

/** Histogram buckets in seconds: from the response of a local cache to a slow report. */
const buckets = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Measures each call, from the caller's request to the end of the response or to the upgrade. */
export const callTelemetry: Layer = (service, _policy, { meter, now }) => {
  if (meter === null) return null
  const duration = meter
    .histogram({
      name: 'jingwei_mesh_request_duration_seconds',
      help: 'Duration of calls to a service, with all attempts and the whole response.',
      labelNames: ['service'],
      buckets
    })
    .labels(service.name)
  return (dispatch) => (opts, handler) => dispatch(opts, new CallTelemetry(handler, duration, now))
}

class CallTelemetry extends ForwardingHandler {
  readonly #duration: Histogram
  readonly #now: () => number
  readonly #startedMs: number
  #observed = false

  constructor(next: DispatchHandler, duration: Histogram, now: () => number) {
    super(next)
    this.#duration = duration
    this.#now = now
    this.#startedMs = now()
  }

  /** Observes once: an upgrade that the caller cannot use fails afterwards. */
  #observe(): void {
    if (this.#observed) return
    this.#observed = true
    this.#duration.observe((this.#now() - this.#startedMs) / 1000)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#observe()
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#observe()
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#observe()
    this.next.onResponseError?.(controller, error)
  }
}

const outcomes = [
  'success', '4xx', '5xx', 'connect-failure', 'refused-stream', 'reset', 'timeout', 'local', 'aborted', 'hedged', 'other'
] // biome-ignore format: a list

type CountOutcome = (outcome: string) => void

/** Counters by mesh and service, which all chains of a service share. */
const counters = new WeakMap<LayerContext, Map<string, CountOutcome>>()

function outcomeCounter(service: string, meter: Meter, context: LayerContext): CountOutcome {
  const ofServices = counters.get(context) ?? new Map<string, CountOutcome>()
  counters.set(context, ofServices)
  const known = ofServices.get(service)
  if (known !== undefined) return known
  const attempts = { name: 'jingwei_mesh_attempts_total', help: 'Attempts at instances, by outcome.' }
  const counts = new Map(outcomes.map((outcome) => [outcome, counterOf(meter, attempts, { service, outcome })]))
  const count = (outcome: string) => counts.get(outcome)!()
  ofServices.set(service, count)
  return count
}

/** Counts each attempt by its outcome. */
export const attemptTelemetry: Layer = (service, _policy, context) => {
  const { meter } = context
  if (meter === null) return null
  const count = outcomeCounter(service.name, meter, context)
  return (dispatch) => (opts, handler) => dispatch(opts, new AttemptTelemetry(handler, opts.call!, count))
}

class AttemptTelemetry extends ForwardingHandler {
  readonly #call: DispatchController
  readonly #count: (outcome: string) => void
  #sent = false
  #status = 0
  #upgraded = false

  constructor(next: DispatchHandler, call: DispatchController, count: (outcome: string) => void) {
    super(next)
    this.#call = call
    this.#count = count
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
    this.#upgraded = true
    this.#count('success')
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    this.#status = status
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#count(outcomeOf(this.#status))
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (!this.#upgraded) this.#count(this.#failure(error))
    this.next.onResponseError?.(controller, error)
  }

  #failure(error: Error): string {
    // An error response may be aborted because a retry follows; its status is the outcome.
    if (this.#status >= 400) return outcomeOf(this.#status)
    const { aborted, reason } = this.#call
    if (!aborted) return classify(error, this.#sent)
    if (reason instanceof AttemptUnneeded) return 'hedged'
    return reason !== null && classify(reason, this.#sent) === 'timeout' ? 'timeout' : 'aborted'
  }
}

function outcomeOf(status: number): string {
  return status < 400 ? 'success' : status < 500 ? '4xx' : '5xx'
}
