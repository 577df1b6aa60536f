import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { CallContext, CallRecord } from '../../../seam.ts'
import { DiscardingHandler } from '../../core/handlers/discarding-handler.ts'
import { respondWith } from '../../core/handlers/static-response.ts'
import { SwitchingHandler } from '../../core/handlers/switching-handler.ts'
import type { LayerContext } from '../../core/layer.ts'
import type { Count } from '../../core/metrics.ts'
import type { ReplayBody } from '../../core/repeating/replay-body.ts'
import { isReplayable, replayableBody } from '../../core/repeating/replay-body.ts'
import type { Service } from '../../core/service.ts'
import type { Dispatch, DispatchController, DispatchHandler, DispatchOptions } from '../../core/types.ts'
import type { Recording, StaleStore, Stored } from './stale-store.ts'
import type { Failing, Step } from './steps.ts'
import { failingOf } from './steps.ts'

declare module 'undici' {
  namespace Dispatcher {
    interface DispatchOptions {
      /** Services that a call fell back from, so that two services which are each other's fallback make no loop. */
      fellBackFrom?: readonly string[]
    }
  }
}

interface FallbackContext {
  readonly service: Service
  readonly steps: readonly Step[]
  readonly toService: LayerContext['toService']
  readonly count: Readonly<Record<'service' | 'stale' | 'static', Count>>
  readonly store: StaleStore | null
  readonly idempotent: (opts: DispatchOptions) => boolean
  /** Bytes of a streamed body that are buffered for another service. */
  readonly bufferBytes: number
}

/** Fallback that is used: a step, with the stored response of a `stale` one. */
type Choice = { readonly step: Step; readonly stored: Stored | null }

const mark = 'x-jingwei-fallback'

/** A call with its fallbacks, which the caller sees as one call. */
export class FallbackCall extends SwitchingHandler {
  readonly #context: FallbackContext
  readonly #opts: DispatchOptions
  readonly #body: ReplayBody | null
  /** Failures so far. */
  readonly #failings: Failing[] = []
  /** First error, of the service itself; more useful to the caller than that of a fallback. */
  #error: Error | null = null
  #next = 0
  /** Kind of the last fallback that was used. */
  #kind: 'service' | 'stale' | 'static' | null = null

  constructor(next: DispatchHandler, opts: DispatchOptions, context: FallbackContext) {
    super(next, context.service.name)
    this.#context = context
    this.#body = context.bufferBytes === 0 ? null : replayableBody(opts, context.bufferBytes, context.service)
    this.#opts = this.#body === null ? opts : { ...opts, body: this.#body as never }
  }

  begin(dispatch: Dispatch): boolean {
    return dispatch(this.#opts, new CandidateHandler(this, null, this.#context.store))
  }

  get opts(): DispatchOptions {
    return this.#opts
  }

  override get substitute(): string | null {
    return this.#kind === null ? super.substitute : 'fallback'
  }

  override get substituteKind(): string | null {
    return this.#kind ?? super.substituteKind
  }

  /**
   * Uses the next fallback that applies to this failure or an earlier one and has a response; false if there is none.
   */
  fallBack(failing: Failing | null, error: Error | null, source: DispatchController): boolean {
    if (this.over || this.aborted) return false
    // A failure that matches no condition ends the call, unless it is that of a fallback.
    if (failing === null && this.#failings.length === 0) return false
    if (this.#failings.length === 0) this.#error = error
    if (failing !== null) this.#failings.push(failing)
    const choice = this.#choose(failing)
    if (choice === null) return false
    this.detachSource()
    this.#take(choice, source)
    return true
  }

  /** Called when a response goes to the caller: no fallback follows. */
  passOn(): void {
    this.#body?.seal()
  }

  /** Fails the call when no fallback is left. */
  fail(controller: DispatchController, error: Error): void {
    this.onResponseError(controller, this.aborted ? error : (this.#error ?? error))
  }

  protected override finish(): void {
    super.finish()
    this.#body?.close()
  }

  #choose(failing: Failing | null): Choice | null {
    const { steps, store } = this.#context
    while (this.#next < steps.length) {
      const step = steps[this.#next++]!
      if (!this.#failings.some(step.isFor)) continue
      if (step.service !== null) {
        if (this.#maySend(step.service, failing)) return { step, stored: null }
      } else if (!step.stale) return { step, stored: null }
      else {
        const stored = store?.find(this.#opts) ?? null
        if (stored !== null) return { step, stored }
      }
    }
    return null
  }

  #maySend(name: string, failing: Failing | null): boolean {
    const { service, idempotent } = this.#context
    if (name === service.name || this.#opts.fellBackFrom?.includes(name)) return false
    if (this.sent && !idempotent(this.#opts)) return false
    // After a timeout, a connection may still be established and read the stream; after an unknown failure, too.
    return isReplayable(this.#opts.body, !this.sent && failing !== null && failing !== 'timeout')
  }

  #take({ step, stored }: Choice, source: DispatchController): void {
    const { count, store, service, toService } = this.#context
    this.#kind = step.service !== null ? 'service' : stored !== null ? 'stale' : 'static'
    count[this.#kind]()
    if (step.service !== null) {
      const fellBackFrom = [...(this.#opts.fellBackFrom ?? []), service.name]
      const candidate = new CandidateHandler(this, step.service, null)
      try {
        toService(step.service)({ ...this.#opts, fellBackFrom }, candidate)
      } catch (error) {
        candidate.onResponseError(source, error as Error)
      }
    } else if (stored !== null) {
      const { headers, body } = stored
      const before = headers['cache-status']
      const hit = 'jingwei; hit; detail=stale-if-error'
      const more = {
        'content-length': String(body.length),
        age: String(store!.ageOf(stored)),
        'cache-status': before === undefined ? hit : `${before}, ${hit}`,
        [mark]: 'stale'
      }
      this.#respond(200, { ...headers, ...more }, body)
    } else {
      const { status, headers, body } = step.response!
      this.#respond(status, { ...headers, [mark]: 'static' }, body)
    }
  }

  #respond(status: number, headers: IncomingHttpHeaders, body: Buffer): void {
    this.passOn()
    respondWith(this.#opts, this, status, headers, body)
  }
}

/** Handler of one call whose response the caller may get: to the service, or to one that is its fallback. */
class CandidateHandler extends DiscardingHandler {
  readonly #owner: FallbackCall
  /** Name of the service that is the fallback; null for the service itself. */
  readonly #service: string | null
  readonly #store: StaleStore | null
  #passedOn = false
  #recording: Recording | null = null
  #call: CallRecord | null = null

  constructor(owner: FallbackCall, service: string | null, store: StaleStore | null) {
    super(owner)
    this.#owner = owner
    this.#service = service
    this.#store = store
  }

  override onRequestStart(controller: DispatchController, context: unknown): void {
    this.#call = (context as CallContext | null)?.call ?? null
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
    if (status < 200) {
      this.next.onResponseStart?.(controller, status, headers, text)
      return
    }
    if (status >= 400 && this.#owner.fallBack(status, null, controller)) {
      this.discard(controller)
      return
    }
    this.#passedOn = true
    this.#owner.passOn()
    this.#recording = this.#store?.record(this.#owner.opts, status, headers) ?? null
    const marked = this.#service === null ? headers : { ...headers, [mark]: `service:${this.#service}` }
    this.next.onResponseStart?.(controller, status, marked, text)
  }

  override onResponseData(controller: DispatchController, chunk: Buffer): void {
    if (!this.discarding) this.#recording?.add(chunk)
    super.onResponseData(controller, chunk)
  }

  override onResponseEnd(controller: DispatchController, trailers: IncomingHttpHeaders): void {
    if (!this.discarding) this.#recording?.end()
    super.onResponseEnd(controller, trailers)
  }

  protected override failed(controller: DispatchController, error: Error): void {
    if (this.#passedOn) {
      this.next.onResponseError?.(controller, error)
      return
    }
    const failing = failingOf(error, this.#call?.sent ?? true)
    if (!this.#owner.fallBack(failing, error, controller)) this.#owner.fail(controller, error)
  }
}
