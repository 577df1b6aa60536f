import type { EventEmitter } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Call } from '../call.ts'
import { classify } from '../errors.ts'
import { ForwardingHandler } from '../handlers/forwarding-handler.ts'
import type { Host } from '../health/outlier-detector.ts'
import { concern, OutlierDetector } from '../health/outlier-detector.ts'
import type { Layer } from '../layer.ts'
import type { DispatchController, DispatchHandler, DispatchOptions, Surroundings } from '../types.ts'

/** Of the instance's making, though `classify` cannot know: whose address it is, and what it answered. */
const blamed = new Set([
  'JW_ATTEMPT_TIMEOUT',
  'JW_IDENTITY_MISMATCH',
  'UND_ERR_HEADERS_OVERFLOW',
  'UND_ERR_RES_CONTENT_LENGTH_MISMATCH'
])
/** The pool of an instance that left; and silence in a stream, which may have nothing to say. */
const blameless = new Set(['UND_ERR_CLOSED', 'UND_ERR_DESTROYED', 'UND_ERR_BODY_TIMEOUT'])

interface Context {
  readonly detector: OutlierDetector
  readonly timeoutMs: number
  readonly now: Surroundings['now']
}

/** Takes out instances that answer worse than the others: tells the detector how each attempt ended. */
export const outlierDetection: Layer = (service, policy, around) => {
  const options = policy.outlierDetection
  if (!options) return null
  const detector = service.keep(concern, () => new OutlierDetector(service.name, options, around))
  const context: Context = { detector, timeoutMs: policy.timeout, now: around.now }
  return (dispatch) => (opts, handler) => {
    const host = detector.host(opts.instance!.endpoint)
    return dispatch(opts, host === undefined ? handler : new OutlierHandler(handler, opts, host, context))
  }
}

/** A failure is told at once, so that the next request goes elsewhere; a success when the answer is whole. */
class OutlierHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #host: Host
  readonly #context: Context
  readonly #startedMs: number
  #sent = false
  #answered = false
  #told = false
  /** The request's body broke off: not the instance's doing, though the connection may look it. */
  #bodyFailed = false

  constructor(next: DispatchHandler, { call, body }: DispatchOptions, host: Host, context: Context) {
    super(next)
    this.#call = call!
    this.#host = host
    this.#context = context
    this.#startedMs = context.now()
    if (typeof body === 'object' && body !== null && 'once' in body) {
      const stream = body as EventEmitter
      // Before undici listens, and undici destroys the stream only after it has told of a failure of its own.
      stream.once('error', () => {
        this.#bodyFailed = true
      })
    }
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
    this.#succeeded()
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 500) this.#failed(status)
    else if (status >= 200) this.#answered = true
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#succeeded()
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    if (this.#blames(error)) this.#failed(0)
    // It had answered; that its answer was not wanted to the end says nothing against it.
    else if (this.#answered) this.#succeeded()
    this.next.onResponseError?.(controller, error)
  }

  #succeeded(): void {
    if (!this.#told) this.#context.detector.succeeded(this.#host)
    this.#told = true
  }

  #failed(status: number): void {
    if (!this.#told) this.#context.detector.failed(this.#host, status)
    this.#told = true
  }

  /** Whether a failure is the instance's: not that of a caller who left, of a hedge that lost, or a refusal of ours. */
  #blames(error: Error & { code?: string }): boolean {
    const { aborted, reason } = this.#call
    if (aborted) return this.#hadItsTime(reason)
    const { code = '' } = error
    if (blamed.has(code)) return true
    if (code.startsWith('JW_') || blameless.has(code) || this.#bodyFailed) return false
    return error.name === 'HTTPParserError' || classify(error, this.#sent) !== 'other'
  }

  /**
   * Where the call's time is up before the attempt's, an instance that never answers would never be blamed; one that a
   * retry came to only in the end has not had a fair share of it.
   */
  #hadItsTime(reason: (Error & { code?: string }) | null): boolean {
    if (reason?.code !== 'JW_CALL_TIMEOUT') return false
    const { now, timeoutMs } = this.#context
    return now() - this.#startedMs >= timeoutMs / 2
  }
}
