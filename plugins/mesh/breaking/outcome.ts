import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Call } from '../call.ts'
import { classify } from '../errors.ts'
import { ForwardingHandler } from '../handlers/forwarding-handler.ts'
import type { DispatchController, DispatchHandler, DispatchOptions } from '../types.ts'

/** How a call or an attempt ended, as far as it tells of the service; `none` blames and praises nobody. */
export type Outcome = 'success' | 'error' | 'timeout' | 'none'

/**
 * Tells once how it ended, and how long its headers took from the end of the request. The headers decide:
 * what follows them, a stream or an upgraded connection, may take any time.
 */
export abstract class OutcomeHandler extends ForwardingHandler {
  readonly #call: Call
  readonly #body: DispatchOptions['body']
  readonly #now: () => number
  readonly #timeoutMs: number
  #fromMs: number
  #told = false

  /** `timeoutMs`: of the whole call. */
  constructor(next: DispatchHandler, { call, body }: DispatchOptions, now: () => number, timeoutMs: number) {
    super(next)
    this.#call = call!
    this.#body = body
    this.#now = now
    this.#timeoutMs = timeoutMs
    this.#fromMs = now() - call!.waitedMs
  }

  protected abstract ended(outcome: Outcome, latencyMs: number, nowMs: number): void

  #tell(outcome: Outcome | null, error?: Error): void {
    if (this.#told) return
    this.#told = true
    const now = this.#now()
    const latencyMs = now - this.#fromMs - this.#call.waitedMs
    this.ended(outcome ?? this.#outcomeOf(error!, latencyMs), latencyMs, now)
  }

  #outcomeOf(error: Error & { code?: string }, latencyMs: number): Outcome {
    const { aborted, over } = this.#call
    const { code = '' } = error
    // A caller who left may say so with any error. At the deadline, an attempt that had the time is to blame for it,
    // one that a retry or a queue left with little is not.
    if (aborted) return code === 'JW_CALL_TIMEOUT' && latencyMs >= this.#timeoutMs / 2 ? 'timeout' : 'none'
    if (over || ours.test(code) || isBroken(this.#body)) return 'none'
    const failure = classify(error, false)
    if (failure === 'timeout') return 'timeout'
    return failure !== 'other' || error.name === 'HTTPParserError' || faults.test(code) ? 'error' : 'none'
  }

  override onBodySent(chunk: Buffer): void {
    this.#fromMs = this.#now() - this.#call.waitedMs
    this.next.onBodySent?.(chunk)
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    this.#tell('success')
    this.next.onRequestUpgrade?.(controller, status, headers, socket)
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (status >= 200) this.#tell(status >= 500 ? 'error' : 'success')
    this.next.onResponseStart?.(controller, status, headers, text)
  }

  override onResponseError(controller: DispatchController, error: Error): void {
    this.#tell(null, error)
    this.next.onResponseError?.(controller, error)
  }
}

/** The pool of an instance that left. */
const ours = /^UND_ERR_(CLOSED|DESTROYED)$/
/** Besides those of the network: malformed answers, TLS. What is left are our refusals, and the caller's own faults. */
const faults =
  /^(HPE_|UND_ERR_RES_|UND_ERR_HEADERS_OVERFLOW|ERR_(TLS|SSL|HTTP2)_|UNABLE_TO_|JW_IDENTITY_MISMATCH)|CERT|SELF_SIGNED|ISSUER/

/** A stream that failed by itself takes the connection with it; undici destroys one only after it told why. */
function isBroken(body: DispatchOptions['body']): boolean {
  if (typeof body !== 'object' || body === null || !('errored' in body)) return false
  return body.errored !== null || body.readableAborted
}
