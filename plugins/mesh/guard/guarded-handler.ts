import type { AsyncResource } from 'node:async_hooks'
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { asError } from '../../thrown.ts'
import { errors } from '../../undici.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../core/types.ts'
import { isBorrowing } from '../http/borrowing.ts'
import type { Interception } from './interception.ts'

/**
 * Calls a handler of a plugin's interceptor. As in undici, an error that the handler throws goes to the handler's own
 * `onResponseError`; undici's `retry` relies on that. An error thrown there, or a later rejection, fails the call.
 */
export class GuardedHandler implements DispatchHandler, DispatchController {
  declare borrows: DispatchHandler['borrows']
  aborted = false
  paused = false
  reason: Error | null = null
  readonly #handler: DispatchHandler
  readonly #interception: Interception
  /** Async context in which the interceptor called `dispatch`. */
  readonly #asyncContext: AsyncResource
  #source: DispatchController | null = null
  /** The response is complete, has failed, or is an upgraded connection: no events follow from below. */
  #over = false
  #failed = false
  #responds = false
  #socket: Duplex | null = null

  constructor(handler: DispatchHandler, interception: Interception, asyncContext: AsyncResource) {
    this.#handler = handler
    this.#interception = interception
    this.#asyncContext = asyncContext
    this.borrows = isBorrowing(handler) ? GuardedHandler.prototype.onResponseData : undefined
  }

  begin(dispatch: Dispatch, opts: DispatchOptions): void {
    const failure = this.#interception.dispatched(this)
    try {
      if (failure !== null) throw failure
      dispatch(opts, this)
    } catch (error) {
      this.onResponseError(this, asError(error))
    }
  }

  get rawHeaders(): DispatchController['rawHeaders'] {
    return this.#source?.rawHeaders
  }

  get rawTrailers(): DispatchController['rawTrailers'] {
    return this.#source?.rawTrailers
  }

  get awaitsBody(): boolean {
    return this.#source?.awaitsBody ?? false
  }

  /**
   * Aborts even after the end, where undici ignores it: the interceptor may hold the response back and end it this way.
   */
  abort(given?: Error): void {
    const reason = given === undefined ? new errors.RequestAbortedError() : asError(given)
    if (this.#failed) return
    this.aborted = true
    this.#interception.chosen(reason)
    this.#end(reason, 'controller.abort')
  }

  /** True if a response has begun and is paused: no events follow until it resumes. */
  get isStopped(): boolean {
    return this.paused && this.#responds
  }

  pause(): void {
    this.paused = true
    this.#source?.pause()
    this.#interception.settle()
  }

  resume(): void {
    this.paused = false
    this.#interception.resumed()
    this.#source?.resume()
  }

  onRequestStart(controller: DispatchController, context: unknown): void {
    if (this.#failed) {
      controller.abort(this.reason ?? new errors.RequestAbortedError())
      return
    }
    this.#source = controller
    if (this.paused) controller.pause()
    this.#run('onRequestStart', this, context)
  }

  onBodySent(chunk: Buffer): void {
    this.#run('onBodySent', chunk)
  }

  onRequestSent(): void {
    this.#run('onRequestSent')
  }

  onRequestUpgrade(
    _controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    if (this.#failed) {
      socket.destroy()
      return
    }
    this.#socket = socket
    this.#over = true
    this.#interception.ended(this, socket)
    this.#run('onRequestUpgrade', this, status, headers, socket)
    this.#interception.settle()
  }

  onResponseStart(_controller: DispatchController, status: number, headers: IncomingHttpHeaders, text?: string): void {
    this.#responds = status >= 200
    this.#run('onResponseStart', this, status, headers, text)
    if (this.isStopped) this.#interception.settle()
  }

  onResponseData(_controller: DispatchController, chunk: Buffer): void {
    this.#run('onResponseData', this, chunk)
  }

  onResponseEnd(_controller: DispatchController, trailers: IncomingHttpHeaders): void {
    this.#over = true
    this.#interception.ended(this)
    this.#run('onResponseEnd', this, trailers)
    this.#interception.settle()
  }

  onResponseError(_controller: DispatchController, error: Error): void {
    if (this.#failed) return
    this.#interception.faults.foreign(error)
    this.#fail(error)
  }

  #run(method: Callback, ...args: unknown[]): void {
    if (!this.#failed) this.#call(method, args, (thrown) => this.#threw(method, thrown))
  }

  #call(method: Callback, args: unknown[], onThrown: (thrown: Error) => void): void {
    const handler = this.#handler as Partial<Record<Callback, (...args: unknown[]) => unknown>>
    this.#asyncContext.runInAsyncScope(() => this.#interception.inside(() => handler[method]?.(...args), onThrown))
  }

  #threw(method: Callback, error: Error): void {
    this.#socket?.destroy()
    if (this.#failed) {
      this.#interception.fail(method, error)
      return
    }
    // As in undici, an error after the end is no abort, and the handler may dispatch again.
    this.aborted = !this.#over
    this.#end(error, method)
  }

  /** Fails the response because of the interceptor or a layer above. */
  #end(reason: Error, where: string): void {
    this.#interception.blame(where, reason)
    this.reason = reason
    if (!this.#over) this.#source?.abort(reason)
    if (!this.#failed) this.#fail(reason)
  }

  #fail(error: Error): void {
    this.#failed = true
    this.#over = true
    this.#interception.ended(this)
    this.#call('onResponseError', [this, error], (thrown) => this.#interception.fail('onResponseError', thrown))
    this.#interception.settle()
  }
}

type Callback = Extract<keyof DispatchHandler, `on${string}`>
