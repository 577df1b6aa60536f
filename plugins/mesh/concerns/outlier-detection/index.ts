import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { MeshConcern } from '../../concern.ts'
import { blame } from '../../core/blame.ts'
import type { Call } from '../../core/call.ts'
import { ForwardingHandler } from '../../core/handlers/forwarding-handler.ts'
import type { Layer } from '../../core/layer.ts'
import { StateKey } from '../../core/service-state.ts'
import type { DispatchController, DispatchHandler, DispatchOptions, MeshDeps } from '../../core/types.ts'
import type { Host } from './detector.ts'
import { concern, OutlierDetector } from './detector.ts'
import { outlierDetectionKey } from './options.ts'

const detectorKey = new StateKey<OutlierDetector>(concern)

interface Context {
  readonly detector: OutlierDetector
  readonly timeoutMs: number
  readonly now: MeshDeps['now']
}

/** Ejects instances that fail more often than others: reports the outcome of each attempt to the detector. */
export const outlierDetection: Layer = (service, policy, { now }) => {
  const options = policy.outlierDetection
  if (!options) return null
  const detector = service.state(detectorKey, (deps) => new OutlierDetector(service.name, options, deps))
  const context: Context = { detector, timeoutMs: policy.timeout, now }
  return (dispatch) => (opts, handler) => {
    const host = detector.host(opts.instance!.endpoint)
    return dispatch(opts, host === undefined ? handler : new OutlierHandler(handler, opts, host, context))
  }
}

/** Reports a failure at once, so that the next request goes elsewhere, and a success when the response is complete. */
class OutlierHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #host: Host
  readonly #context: Context
  /** Start of the attempt, less the time that its call had spent in queues by then. */
  readonly #fromMs: number
  #responded = false
  #reported = false

  constructor(next: DispatchHandler, { call }: DispatchOptions, host: Host, context: Context) {
    super(next)
    this.#call = call!
    this.#host = host
    this.#context = context
    this.#fromMs = context.now() - this.#call.waitedMs
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
    else if (status >= 200) this.#responded = true
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#succeeded()
    this.next.onResponseEnd?.(controller, trailers)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    const { now, timeoutMs } = this.#context
    const elapsedMs = now() - this.#fromMs - this.#call.waitedMs
    if (blame(error, this.#call, elapsedMs, timeoutMs) !== null) this.#failed(0)
    // The instance had responded; that the caller did not read the whole response is not its failure.
    else if (this.#responded) this.#succeeded()
    this.next.onResponseError?.(controller, error)
  }

  #succeeded(): void {
    if (!this.#reported) this.#context.detector.succeeded(this.#host)
    this.#reported = true
  }

  #failed(status: number): void {
    if (!this.#reported) this.#context.detector.failed(this.#host, status)
    this.#reported = true
  }
}

export default { name: 'outlier-detection', keys: [outlierDetectionKey], layer: outlierDetection } satisfies MeshConcern
