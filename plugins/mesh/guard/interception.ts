import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { asError, isThenable } from '../../thrown.ts'
import { isNamed } from '../core/errors.ts'
import { StableHandler } from '../core/handlers/stable-handler.ts'
import type {
  Dispatch, DispatchController, DispatchHandler, DispatchOptions, FaultOwner
} from '../core/types.ts' // biome-ignore format: a list
import { isBorrowing } from '../http/borrowing.ts'
import type { Guard } from './faults.ts'
import { Faults } from './faults.ts'
import { bytesOf, ResponseContract } from './handler-contract.ts'

/** View of a handler that the interceptor has dispatched. */
interface Dispatched {
  /** True if a response has begun and is paused: no events follow until it resumes. */
  readonly isStopped: boolean
  readonly awaitsBody: boolean
  abort(reason: Error): void
}

/**
 * One call through a plugin's interceptor: the handler that the interceptor gets, and the controller of the layer
 * above. Whatever the interceptor does, the layer above gets one response, complete or failed, in bounded time.
 */
export class Interception extends StableHandler implements FaultOwner {
  readonly guard: Guard
  /** Options that were passed to the interceptor. */
  readonly opts: DispatchOptions
  readonly faults: Faults
  readonly #contract: ResponseContract
  /** Handlers that the interceptor has dispatched and that are in progress. */
  readonly #below = new Set<Dispatched>()
  #started = false
  /** Error of the call; null if it has not failed. */
  #failure: Error | null = null
  /** Upgraded connection that the interceptor received, and the one that it passed on. */
  #received: Duplex | null = null
  #upgraded: Duplex | null = null
  #hold: NodeJS.Timeout | null = null
  #progressed = false

  constructor(next: DispatchHandler, guard: Guard, opts: DispatchOptions) {
    super(next)
    this.guard = guard
    this.opts = opts
    this.faults = new Faults(guard, opts.caller)
    this.#contract = new ResponseContract(opts.method)
    this.borrows = isBorrowing(next) ? Interception.prototype.onResponseData : undefined
  }

  get plugin(): string {
    return this.guard.plugin ?? this.guard.name
  }

  begin(inner: Dispatch): void {
    const opts = this.opts
    const isCall = this.guard.per === 'request'
    if (!isCall) opts.call!.whenOver(() => this.#abandon())
    if (this.over) return
    this.#inContext(
      () => inner({ ...opts, interception: this }, this),
      (error) => this.fail('dispatch', error)
    )
    // Start now, so that the layers above get their controller and start their timers while the interceptor waits.
    if (isCall && !this.#started && !this.over) this.#above(() => this.next.onRequestStart?.(this, {}))
    this.settle()
  }

  /** Called when the call is over. An attempt that another one replaced may still end by itself. */
  #abandon(): void {
    const { aborted, reason } = this.opts.call!
    if (aborted || this.#below.size === 0) this.abort(reason ?? new Error('the call is over'))
  }

  /** Runs code of the interceptor. `onThrown` gets an error that it throws, or with which its promise rejects. */
  inside(code: () => unknown, onThrown: (error: Error) => void): void {
    const { owners } = this.guard
    try {
      const result = owners === null ? code() : owners.run(this, code)
      if (isThenable(result)) result.then(undefined, (error) => onThrown(asError(error)))
    } catch (error) {
      onThrown(asError(error))
    }
  }

  /** Runs code as `inside` does, in the call's async context. */
  #inContext(code: () => unknown, onThrown: (error: Error) => void): void {
    this.opts.asyncContext!.runInAsyncScope(() => this.inside(code, onThrown))
  }

  /** Runs code of the gateway inside the interceptor, without attributing its timers and sockets to the plugin. */
  outside(code: () => void): void {
    const { owners } = this.guard
    if (owners === null) code()
    else owners.run(null, code)
  }

  /** Calls the layer above. An error that it throws fails the call, and is no fault of the interceptor. */
  #above(code: () => void): void {
    try {
      this.outside(code)
    } catch (thrown) {
      const error = asError(thrown)
      this.faults.foreign(error)
      if (!this.over) this.#conclude(error)
      // As undici does if a handler throws at the end.
      else this.outside(() => this.next.onResponseError?.(this, error))
    }
  }

  /** Registers a dispatched handler. Returns the error of the call if it has failed, else null. */
  dispatched(handler: Dispatched): Error | null {
    if (this.#failure !== null) return this.#failure
    this.#below.add(handler)
    this.#release()
    return null
  }

  ended(handler: Dispatched, upgraded: Duplex | null = null): void {
    this.#below.delete(handler)
    if (upgraded !== null) this.#received = upgraded
  }

  /**
   * Starts the timer if only the interceptor can continue the call: all its handlers have ended or are paused by it.
   */
  settle(): void {
    if (this.over || this.paused) return
    for (const handler of this.#below) if (!handler.isStopped) return
    this.#hold ??= setTimeout(this.#onHeld, this.guard.holdMs)
  }

  resumed(): void {
    this.#release()
  }

  readonly #onHeld = () => {
    this.#hold = null
    const excused = this.paused || this.#progressed
    this.#progressed = false
    if (excused) this.settle()
    else this.fail('continue', new Error(`the interceptor did not continue the call within ${this.guard.holdMs} ms`))
  }

  #release(): void {
    if (this.#hold !== null) clearTimeout(this.#hold)
    this.#hold = null
  }

  /** Records an error of the interceptor; if its handler passes it on, the call fails. */
  blame(where: string, error: Error): void {
    this.faults.own(error, where)
    if (this.over) this.faults.passOn(error, where)
  }

  /** Records an error that the interceptor chose: one with a code of the mesh or the network is no fault. */
  chosen(error: Error): void {
    if (isNamed(error)) this.faults.foreign(error)
  }

  /** Fails the call, if it is not over, because of a fault of the interceptor. */
  fail(where: string, error: Error): void {
    const failure = this.faults.passOn(error, where)
    // If a layer above has aborted, its own reason takes precedence.
    if (!this.over) this.#conclude(this.reason ?? failure)
  }

  contain(error: Error): boolean {
    this.fail('a timer or event of its own', error)
    return true
  }

  #conclude(error: Error): void {
    this.#failure = error
    this.finish()
    for (const handler of [...this.#below]) handler.abort(error)
    this.#received?.destroy()
    this.#above(() => this.next.onResponseError?.(this, error))
  }

  /** Returns whether an event is valid; an invalid one is a fault, unless the call has failed already. */
  #accepts(method: string, fault: Error | null): boolean {
    if (fault !== null && this.#failure === null) this.fail(method, fault)
    return fault === null
  }

  override get awaitsBody(): boolean {
    for (const handler of this.#below) if (handler.awaitsBody) return true
    return false
  }

  override abort(given: Error): void {
    if (this.over) return
    const { code } = given as { code?: string }
    const isHeld = code === 'JW_CALL_TIMEOUT' && this.#below.size === 0
    const reason = isHeld
      ? this.faults.passOn(new Error('the interceptor did not continue the call in time'), 'continue')
      : given
    this.faults.foreign(reason)
    // The controller below may be one that the interceptor created.
    this.#inContext(
      () => super.abort(reason),
      () => {}
    )
    if (!this.over) this.#conclude(reason)
  }

  override pause(): void {
    this.inside(
      () => super.pause(),
      (error) => this.fail('controller.pause', error)
    )
  }

  override resume(): void {
    this.inside(
      () => super.resume(),
      (error) => this.fail('controller.resume', error)
    )
    this.settle()
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    super.onRequestStart(controller, context)
    if (this.over) return
    this.#started = true
    this.#above(() => this.next.onRequestStart?.(this, context))
  }

  override onBodySent(chunk: Buffer): void {
    this.#above(() => this.next.onBodySent?.(chunk))
  }

  override onRequestSent(): void {
    this.#above(() => this.next.onRequestSent?.())
  }

  override onRequestUpgrade(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    socket: Duplex
  ): void {
    if (!this.#accepts('onRequestUpgrade', this.over ? late() : null)) {
      if (socket !== this.#upgraded) socket.destroy()
      return
    }
    this.#upgraded = socket
    this.rawHeaders = controller?.rawHeaders ?? null
    this.#above(() => this.next.onRequestUpgrade?.(this, status, headers, socket))
    if (this.#failure !== null) socket.destroy()
    else if (!this.over) this.finish()
  }

  override onResponseStart(
    controller: DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (!this.#accepts('onResponseStart', this.over ? late() : this.#contract.start(status, headers))) return
    this.#progressed = true
    this.rawHeaders = controller?.rawHeaders ?? null
    this.#above(() => this.next.onResponseStart?.(this, status, headers, text))
  }

  override onResponseData(_controller: DispatchController, given: Buffer): void {
    const chunk = bytesOf(given)
    if (!this.#accepts('onResponseData', this.over ? late() : this.#contract.data(chunk))) return
    this.#progressed = true
    this.#above(() => this.next.onResponseData?.(this, chunk!))
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (!this.#accepts('onResponseEnd', this.over ? late() : this.#contract.end())) return
    this.finish()
    this.rawTrailers = controller?.rawTrailers ?? null
    this.#above(() => this.next.onResponseEnd?.(this, trailers ?? {}))
  }

  override onResponseError(_controller: DispatchController, given: Error): void {
    const error = asError(given)
    if (this.over) return
    this.chosen(error)
    this.fail(this.faults.originOf(error) ?? 'onResponseError', error)
  }

  protected override finish(): void {
    super.finish()
    this.#release()
  }
}

function late(): Error {
  return new Error('the response was complete')
}
