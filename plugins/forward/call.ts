/** One call to a service: its timeouts, its record for the access log, and its metrics. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { ForwardPolicy } from '../../config/schema/forward.ts'
import type { CallRecord } from '../seam.ts'
import { callError, ForwardError } from './errors.ts'

type Controller = Dispatcher.DispatchController

/** Removes the base path of a service from locations in its headers, given also as name, value, name, value. */
export type Relocate = (headers: IncomingHttpHeaders, raw: unknown) => IncomingHttpHeaders

/** Receives the outcome of a call: its status, or the error that ended it. */
type OnEnd = (outcome: number | Error) => void

export type CallPolicy = Pick<ForwardPolicy, 'timeout' | 'idleTimeout' | 'responseTimeout'>

/**
 * Handler of undici for one call. It is also the call's controller from the start: undici has one only once the request is
 * on a connection, and the caller may abort before.
 */
export class ForwardCall implements Dispatcher.DispatchHandler, CallRecord {
  readonly service: string
  readonly instance: string
  readonly substitute = null
  readonly substituteKind = null
  attempts = 1
  sent = false
  readonly #next: Dispatcher.DispatchHandler
  readonly #policy: CallPolicy
  readonly #relocate: Relocate | null
  readonly #onEnd: OnEnd
  readonly #controller: Controller
  #undici: Controller | null = null
  #aborted: Error | null = null
  #timer: NodeJS.Timeout | undefined
  #status = 0
  /** True once the whole request has been sent. */
  #isSent = false
  #lastSentMs = 0
  #isOver = false

  constructor(
    service: string,
    instance: string,
    next: Dispatcher.DispatchHandler,
    policy: CallPolicy,
    relocate: Relocate | null,
    onEnd: OnEnd
  ) {
    this.service = service
    this.instance = instance
    this.#next = next
    this.#policy = policy
    this.#relocate = relocate
    this.#onEnd = onEnd
    const call = this
    this.#controller = {
      get aborted() {
        return call.#aborted !== null
      },
      get paused() {
        return call.#undici?.paused ?? false
      },
      get reason() {
        return call.#aborted
      },
      get rawHeaders() {
        return call.#undici?.rawHeaders
      },
      get rawTrailers() {
        return call.#undici?.rawTrailers
      },
      abort: (reason: Error) => call.#abort(reason),
      pause: () => call.#undici?.pause(),
      resume: () => call.#undici?.resume()
    } as Controller
  }

  /** True if the caller or a timeout has aborted the call. */
  get wasAborted(): boolean {
    return this.#aborted !== null
  }

  /** Begins the call, before it has a connection. Returns false if the caller has aborted it already. */
  begin(): boolean {
    this.#lastSentMs = performance.now()
    this.#timer = setTimeout(() => this.#expire(), this.#policy.timeout)
    this.#next.onRequestStart?.(this.#controller, { call: this })
    return this.#aborted === null
  }

  #expire(): void {
    const { timeout, idleTimeout } = this.#policy
    if (!this.#isSent && this.sent) {
      // The client may be slow to send its body. A service that does not take the body is silent for the idle timeout.
      const limitMs = Math.max(timeout, idleTimeout || Number.POSITIVE_INFINITY)
      const leftMs = this.#lastSentMs + limitMs - performance.now()
      if (leftMs > 0) {
        this.#timer = setTimeout(() => this.#expire(), Math.min(leftMs, timeout))
        return
      }
    }
    this.#abort(new ForwardError('JW_CALL_TIMEOUT', this.service))
  }

  #abort(reason: Error): void {
    if (this.#aborted !== null || this.#isOver) return
    this.#aborted = reason
    if (this.#undici !== null) this.#undici.abort(reason)
    // Without a connection, undici would report the abort only once it has one.
    else this.#fail(reason)
  }

  #end(outcome: number | Error): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    this.#onEnd(outcome)
  }

  #fail(error: Error): void {
    if (this.#isOver) return
    this.#end(error)
    this.#next.onResponseError?.(this.#controller, error)
  }

  onRequestStart(controller: Controller): void {
    this.#undici = controller
    this.sent = true
    if (this.#aborted !== null) controller.abort(this.#aborted)
  }

  onBodySent(chunk: Buffer): void {
    this.#lastSentMs = performance.now()
    this.#next.onBodySent?.(chunk)
  }

  onRequestSent(): void {
    if (!this.#isSent && this.#status === 0 && !this.#isOver) {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.#expire(), this.#policy.timeout)
    }
    this.#isSent = true
    this.#next.onRequestSent?.()
  }

  onRequestUpgrade(_controller: Controller, status: number, headers: IncomingHttpHeaders, socket: Duplex): void {
    if (this.#isOver) {
      socket.destroy()
      return
    }
    try {
      this.#next.onRequestUpgrade?.(this.#controller, status, headers, socket)
    } catch (error) {
      // undici has handed over the socket, and reports no error of it.
      socket.on('error', () => {}).destroy()
      this.#fail(error as Error)
      return
    }
    this.#end(status)
  }

  onResponseStart(_controller: Controller, status: number, headers: IncomingHttpHeaders, text?: string): void {
    if (this.#isOver) return
    if (status < 100) {
      // undici would report an AssertionError.
      this.#abort(new ForwardError('JW_UPSTREAM_MALFORMED', this.service))
      return
    }
    if (status >= 200) {
      clearTimeout(this.#timer)
      this.#status = status
      const { responseTimeout = false } = this.#policy
      if (responseTimeout !== false) {
        const expire = () => this.#abort(new ForwardError('JW_RESPONSE_TIMEOUT', this.service))
        this.#timer = setTimeout(expire, responseTimeout)
      }
    }
    const passed = this.#relocate?.(headers, this.#controller.rawHeaders) ?? headers
    this.#next.onResponseStart?.(this.#controller, status, passed, text)
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    if (!this.#isOver) this.#next.onResponseData?.(this.#controller, chunk)
  }

  onResponseEnd(_controller: Controller, trailers: IncomingHttpHeaders): void {
    if (this.#isOver) return
    this.#end(this.#status)
    this.#next.onResponseEnd?.(this.#controller, trailers)
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.#fail(callError(error, this.service))
  }
}
