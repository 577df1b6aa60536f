/** One call to the service: passes its response on, and stores it once it is complete. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { ChunkList } from '../../../chunk-list.ts'
import type { CallContext, CallRecord } from '../../../seam.ts'
import type { Asked } from './asked.ts'
import { isSame } from './conditions.ts'
import type { Delivery } from './delivery.ts'
import { isUnchanged } from './respond.ts'
import type { Pending } from './store.ts'
import type { StoredHead, StoredResponse } from './stored.ts'

/** Bytes of the body of an error that are read after a stored response was sent in its place. */
const maxDropped = 64 * 1024

/** The cache of a route, as a fetch uses it. */
export interface FetchContext {
  readonly maxEntry: number
  now(): number
  reserve(bytes: number): boolean
  release(bytes: number): void
  end(pending: Pending): void
  /** Returns what is to be stored of a response, null for nothing. */
  judge(fetch: Fetch, status: number, headers: IncomingHttpHeaders, text: string): StoredHead | null
  /** Stores the response of a fetch. `done` gets it, or null if it was invalidated meanwhile. */
  store(fetch: Fetch, entry: StoredResponse, done: Done): void
  /**
   * Updates the stored response of a fetch after a response that confirms it, and returns it. `done` gets it, or null if it
   * was invalidated meanwhile or may not be stored any more.
   */
  confirm(fetch: Fetch, headers: IncomingHttpHeaders, done: Done): StoredResponse
  /** Returns whether the stored response is to be sent in place of an error. */
  rescues(fetch: Fetch): boolean
  /** Sends a stored response to the client of a fetch. */
  send(fetch: Fetch, stored: StoredResponse, kind: 'revalidated' | 'stale', status: number | null): void
  /** Adds the fields of the cache to a response of the service. */
  annotate(fetch: Fetch, headers: IncomingHttpHeaders, status: number, head: StoredHead | null): IncomingHttpHeaders
  /** Called with the response once it is stored; with null if it is not. */
  settled(fetch: Fetch, stored: StoredResponse | null): void
}

type Done = (stored: StoredResponse | null) => void

export class Fetch implements Dispatcher.DispatchHandler {
  readonly asked: Asked
  /** Null for a fetch in the background. */
  readonly delivery: Delivery | null
  /** Stored response that the service is to confirm, or that is sent if the service fails. */
  readonly stored: StoredResponse | null
  /** True if the request has the conditions of the stored response. */
  readonly isConditional: boolean
  readonly pending: Pending
  readonly reason: string
  readonly sentAt: number
  instance: string | null = null
  /** True if the response itself cannot be stored, so that the next one cannot either. */
  isUnstorable = false
  #record: CallRecord | null = null
  readonly #context: FetchContext
  #head: StoredHead | null = null
  readonly #list = new ChunkList()
  /** True if the client gets nothing more of this call. */
  #isDetached = false
  #dropped = 0
  #isSettled = false
  /** True once the response was given to the store, which settles the fetch. */
  #isStoring = false

  constructor(
    context: FetchContext,
    facts: Pick<Fetch, 'asked' | 'delivery' | 'stored' | 'isConditional' | 'pending' | 'reason'>
  ) {
    this.#context = context
    this.asked = facts.asked
    this.delivery = facts.delivery
    this.stored = facts.stored
    this.isConditional = facts.isConditional
    this.pending = facts.pending
    this.reason = facts.reason
    this.sentAt = context.now()
    this.#isDetached = facts.delivery === null
  }

  /** Chunks are copied before this method returns. */
  get borrows(): Dispatcher.DispatchHandler['onResponseData'] {
    return this.delivery === null || this.delivery.borrows ? this.onResponseData : undefined
  }

  /** False if a substitute has responded in place of an instance. */
  get isOfService(): boolean {
    const substitute = this.#record?.substitute ?? null
    return substitute === null || substitute === 'shared'
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: CallContext | null): void {
    this.#record = context?.call ?? null
    this.delivery?.attach(controller, this.#record)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text = ''
  ): void {
    if (status < 200) {
      if (!this.#isDetached) this.delivery?.head(status, headers, text)
      return
    }
    this.instance = this.#record?.instance ?? null
    if (this.isConditional && status === 304) {
      this.#isStoring = true
      const confirmed = this.#context.confirm(this, headers, (stored) => this.#settle(stored))
      this.#replace(confirmed, 'revalidated', status)
      return
    }
    if (isFailure(status) && this.#context.rescues(this)) {
      this.#replace(this.stored!, 'stale', status)
      this.#settle(null)
      return
    }
    if (this.#isConfirmed(status, headers)) {
      this.#isStoring = true
      this.#context.confirm(this, headers, (stored) => this.#settle(stored))
    } else this.#head = this.#context.judge(this, status, headers, text)
    if (Number(headers['content-length'] ?? 0) > this.#context.maxEntry) this.#head = null
    if (this.#head === null && !this.#isStoring) {
      this.isUnstorable = status < 500 && !this.pending.isOutdated
      this.#settle(null)
    }
    if (this.delivery === null) {
      if (this.#head === null) controller.abort(new Error('the response cannot be stored'))
      return
    }
    const passed = this.#context.annotate(this, headers, status, this.#head)
    if (this.isConditional && isUnchanged(this.asked, status, headers)) this.#passUnchanged(passed)
    else this.delivery.head(status, passed, text)
  }

  /** Returns whether a response to HEAD confirms the stored response. */
  #isConfirmed(status: number, headers: IncomingHttpHeaders): boolean {
    const { asked, stored, isOfService } = this
    return asked.isHead && status === 200 && isOfService && stored !== null && isSame(stored, headers)
  }

  /** The conditions are the cache's own, so the service could not see that the client has the response. */
  #passUnchanged(headers: IncomingHttpHeaders): void {
    const { 'content-length': _length, 'content-type': _type, 'transfer-encoding': _coding, ...kept } = headers
    this.delivery!.head(304, kept, '')
    this.delivery!.detach()
    this.delivery!.end({})
    this.#isDetached = true
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#head !== null) this.#keep(chunk)
    if (!this.#isDetached) this.delivery!.data(chunk)
    else if (this.#head === null) {
      this.#dropped += chunk.length
      if (this.#dropped > maxDropped) controller.abort(new Error('the rest of the response is not needed'))
    }
  }

  #keep(chunk: Buffer): void {
    const { maxEntry } = this.#context
    this.isUnstorable = this.#list.size + chunk.length > maxEntry
    if (this.isUnstorable || !this.#context.reserve(chunk.length)) this.#forget()
    else {
      // A copy with memory of its own: the given memory is used again.
      const own = Buffer.allocUnsafeSlow(chunk.length)
      chunk.copy(own)
      this.#list.add(own)
    }
  }

  /** Stores nothing of the response. */
  #forget(): void {
    this.#head = null
    this.#context.release(this.#list.size)
    this.#list.clear()
    this.#settle(null)
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders = {}): void {
    const head = this.#head
    if (head !== null && Object.keys(trailers).length === 0) this.#store(head)
    else if (head !== null) this.#forget()
    else if (!this.#isStoring) this.#settle(null)
    if (!this.#isDetached) this.delivery!.end(trailers)
  }

  #store(head: StoredHead): void {
    const { chunks, size: bytes } = this.#list
    const body = chunks.length === 1 ? chunks[0]! : this.#list.join()
    this.#list.clear()
    this.#head = null
    this.#isStoring = true
    this.#context.store(this, { ...head, body }, (stored) => {
      this.#context.release(bytes)
      this.#settle(stored)
    })
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    if (this.#head !== null) this.#forget()
    const { delivery } = this
    if (!this.#isDetached && !delivery!.isOver && !delivery!.hasHead && this.#context.rescues(this)) {
      this.#replace(this.stored!, 'stale', null)
    }
    if (!this.#isStoring) this.#settle(null)
    if (!this.#isDetached) delivery!.fail(error)
  }

  /** Sends a stored response in place of that of the service. */
  #replace(stored: StoredResponse, kind: 'revalidated' | 'stale', status: number | null): void {
    const wasDetached = this.#isDetached
    this.#isDetached = true
    if (wasDetached) return
    this.delivery!.detach()
    this.#context.send(this, stored, kind, status)
  }

  #settle(stored: StoredResponse | null): void {
    if (this.#isSettled) return
    this.#isSettled = true
    this.#context.end(this.pending)
    this.#context.settled(this, stored)
  }
}

const isFailure = (status: number) => status === 500 || status === 502 || status === 503 || status === 504
