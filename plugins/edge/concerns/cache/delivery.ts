/**
 * The response to one request comes from the store or from one of several calls to the service. The handler of the bridge
 * sees one controller and one record of the call.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { CallRecord } from '../../../seam.ts'
import type { Asked } from './asked.ts'
import type { HeldBodies } from './held-bodies.ts'
import type { StoredResponse } from './stored.ts'

type Controller = Dispatcher.DispatchController
type Handler = Dispatcher.DispatchHandler

/** Bytes of a stored body that are written at a time. */
const pieceBytes = 64 * 1024

export class Delivery implements CallRecord {
  readonly service: string
  paused = false
  aborted = false
  reason: Error | null = null
  /** True once the handler has its end: the response is complete, or has failed. */
  isOver = false
  /** True once the final header section was passed on. */
  hasHead = false
  /** Source of a response from the store, for the log. */
  substituteOwn: string | null = null
  instanceOwn: string | null = null
  readonly #next: Handler
  readonly #keepsChunks: boolean
  #source: Controller | null = null
  #record: CallRecord | null = null
  #body: Buffer | null = null
  #at = 0
  #isWriting = false
  /** Releases the body that is held. */
  #release: (() => void) | null = null

  constructor(next: Handler, service: string) {
    this.#next = next
    this.service = service
    this.#keepsChunks = next.borrows !== next.onResponseData
  }

  /** True if the handler is done with a chunk once its method returns, or once it resumes. */
  get borrows(): boolean {
    return !this.#keepsChunks
  }

  get attempts(): number {
    return this.#record?.attempts ?? 0
  }

  get sent(): boolean {
    return this.#record?.sent ?? false
  }

  get instance(): string | null {
    return this.instanceOwn ?? this.#record?.instance ?? null
  }

  get substitute(): string | null {
    return this.substituteOwn === null ? (this.#record?.substitute ?? null) : 'cache'
  }

  get substituteKind(): string | null {
    return this.substituteOwn ?? this.#record?.substituteKind ?? null
  }

  get rawHeaders(): Controller['rawHeaders'] {
    return this.#source?.rawHeaders
  }

  get rawTrailers(): Controller['rawTrailers'] {
    return this.#source?.rawTrailers
  }

  /** Holds the body of a stored response for this one, until it is over; returns null without a response, or without memory. */
  hold(stored: StoredResponse | null, bodies: HeldBodies, asked: Asked): StoredResponse | null {
    this.#letGo()
    const held = stored === null ? null : bodies.hold(stored, asked)
    this.#release = held?.release ?? null
    if (this.isOver) this.#letGo()
    return held?.stored ?? null
  }

  #letGo(): void {
    this.#release?.()
    this.#release = null
  }

  start(): void {
    this.#give(() => this.#next.onRequestStart?.(this, { call: this }))
  }

  /** Makes a call to the service the source of the response. */
  attach(source: Controller, record: CallRecord | null): void {
    this.#source = source
    if (record !== null) this.#record = record
    if (this.isOver) source.abort(this.reason ?? new Error('the response has ended'))
    else if (this.paused) source.pause()
  }

  /** Detaches from the call to the service: the response comes from the store now. */
  detach(): void {
    this.#source = null
  }

  pause(): void {
    this.paused = true
    this.#source?.pause()
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    if (this.#body === null) this.#source?.resume()
    else this.#write()
  }

  abort(reason: Error): void {
    if (this.isOver) return
    this.aborted = true
    this.reason = reason
    const source = this.#source
    this.fail(reason)
    source?.abort(reason)
  }

  head(status: number, headers: IncomingHttpHeaders, text: string): void {
    if (status >= 200) this.hasHead = true
    this.#give(() => this.#next.onResponseStart?.(this, status, headers, text))
  }

  data(chunk: Buffer): void {
    this.#give(() => this.#next.onResponseData?.(this, chunk))
  }

  end(trailers: IncomingHttpHeaders): void {
    if (this.isOver) return
    this.isOver = true
    this.#body = null
    this.#letGo()
    try {
      this.#next.onResponseEnd?.(this, trailers)
    } catch (error) {
      this.#next.onResponseError?.(this, error as Error)
    }
  }

  fail(error: Error): void {
    if (this.isOver) return
    this.isOver = true
    this.#body = null
    this.#letGo()
    this.#next.onResponseError?.(this, error)
  }

  /** Writes a body from the store at the pace of the client, and ends the response. */
  body(body: Buffer): void {
    this.#body = body
    this.#write()
  }

  #write(): void {
    if (this.#isWriting) return
    this.#isWriting = true
    while (this.#body !== null && !this.paused && this.#at < this.#body.length) {
      const piece = this.#body.subarray(this.#at, this.#at + pieceBytes)
      this.#at += piece.length
      // Hooks may change a chunk that they keep.
      this.data(this.#keepsChunks ? Buffer.from(piece) : piece)
    }
    this.#isWriting = false
    if (this.#body !== null && !this.paused && this.#at >= this.#body.length) this.end({})
  }

  /** Calls the handler; if it throws, the response is aborted, as undici does. */
  #give(call: () => void): void {
    if (this.isOver) return
    try {
      call()
    } catch (error) {
      this.abort(error as Error)
    }
  }
}
