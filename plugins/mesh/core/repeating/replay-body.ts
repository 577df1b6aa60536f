import { EventEmitter } from 'node:events'
import { Readable } from 'node:stream'
import { isTransferring } from '../../http/borrowing.ts'
import { discardBody } from '../../http/discard-body.ts'
import { headerOf } from '../request-facts.ts'
import type { Service } from '../service.ts'
import { StateKey } from '../service-state.ts'
import type { DispatchOptions } from '../types.ts'

type Chunk = string | Uint8Array
type Source = AsyncIterable<Chunk>

/** Bytes of a body that are kept if no retry policy says how many. */
export const usuallyKept = 64 * 1024
/** More are not kept: thousands of tiny chunks would take far more memory than their bytes. */
const mostChunks = 1024
/** Bytes that all requests of a service may keep together. */
const mostTogether = 64 * 1024 * 1024

/** Memory that all kept bodies of a service share. */
export class ReplayPool {
  #bytes = 0

  take(bytes: number): boolean {
    if (this.#bytes + bytes > mostTogether) return false
    this.#bytes += bytes
    return true
  }

  give(bytes: number): void {
    this.#bytes -= bytes
  }

  status() {
    return { bytes: this.#bytes }
  }
}

const replayPool = new StateKey<ReplayPool>('replay')

/**
 * A streamed request body that can be sent again: what the first attempt reads of it is kept, up to a limit, and the
 * next begins with that and goes on with the rest. Nothing waits for the whole, and nothing is read before a reader
 * asks. undici reads it as an async iterable, which it does not destroy when an attempt ends. An `error` is emitted,
 * for who listens, before it reaches a reader.
 */
export class ReplayBody extends EventEmitter implements Source {
  readonly #source: Source
  readonly #most: number
  readonly #pool: ReplayPool
  #iterator: AsyncIterator<Chunk> | null = null
  #pulling: Promise<void> | null = null
  #chunks: Chunk[] = []
  /** Which chunk of the body is the first one still there. */
  #first = 0
  #bytes = 0
  #keeping = true
  #ended = false
  #closed = false
  #error: Error | null = null
  #reader: Reader | null = null
  #readers = 0

  constructor(source: Source, most: number, pool: ReplayPool) {
    super()
    // A listener or two for each attempt.
    this.setMaxListeners(0)
    this.#source = source
    this.#most = most
    this.#pool = pool
    // It may fail while nobody reads; who reads next is told.
    if (source instanceof Readable) source.on('error', (error) => this.#fail(error))
  }

  /** Another attempt would get it from the beginning. */
  get replayable(): boolean {
    return this.#keeping && this.#error === null && !this.#closed
  }

  /** All of it is here: attempts side by side may read it. */
  get whole(): boolean {
    return this.replayable && this.#ended
  }

  /** True if chunks may be freed after sending: no other attempt can need them. */
  get transfers(): boolean {
    return !this.#keeping && this.#readers === 1 && isTransferring(this.#source)
  }

  /** As a stream's. */
  get readableEnded(): boolean {
    return this.#ended
  }

  /** Until it is whole there is but one reader: an attempt that asks for it takes it over from the one before. */
  [Symbol.asyncIterator](): AsyncIterator<Chunk> {
    if (!this.whole) this.#reader?.end()
    this.#readers++
    this.#reader = new Reader((reader) => this.#read(reader))
    return this.#reader
  }

  /** No attempt will need it again; the one that reads it may go on. */
  seal(): void {
    if (!this.#ended) this.#stopKeeping()
  }

  /** The call is over: whoever still reads fails, and what is left of the source nobody wants. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopKeeping()
    this.#chunks = []
    const source = this.#source
    if (!(source instanceof Readable)) {
      void this.#iterator?.return?.().catch(() => {})
    } else if (!this.#ended) {
      discardBody(source, null, this.#iterator)
    }
  }

  async #read(reader: Reader): Promise<Chunk | null> {
    for (;;) {
      const offset = reader.at - this.#first
      // Never the end of the body: to an attempt that nobody wants it must not be whole.
      if (this.#closed || reader.ended || offset < 0) throw new Error('the body is not for this attempt any more')
      const chunk = this.#chunks[offset]
      if (chunk !== undefined) {
        reader.at++
        if (!this.#keeping && !this.#ended) this.#drop(offset + 1)
        return chunk
      }
      if (this.#error !== null) throw this.#error
      if (this.#ended) return null
      this.#pulling ??= this.#pull()
      await this.#pulling
    }
  }

  /** Never rejects: there may be nobody left to hear it. */
  async #pull(): Promise<void> {
    try {
      this.#iterator ??= iteratorOf(this.#source)
      const { done, value } = await this.#iterator.next()
      if (done === true) this.#ended = true
      else if (!this.#closed) this.#append(value)
    } catch (error) {
      this.#fail(error as Error)
    } finally {
      this.#pulling = null
    }
  }

  #append(chunk: Chunk): void {
    this.#chunks.push(chunk)
    if (!this.#keeping) return
    const bytes = typeof chunk === 'string' ? Buffer.byteLength(chunk) : chunk.byteLength
    const fits = this.#bytes + bytes <= this.#most && this.#chunks.length <= mostChunks && this.#pool.take(bytes)
    if (fits) this.#bytes += bytes
    else this.#stopKeeping()
  }

  #stopKeeping(): void {
    if (!this.#keeping) return
    this.#keeping = false
    this.#pool.give(this.#bytes)
    this.#drop(this.#reader === null ? 0 : this.#reader.at - this.#first)
  }

  #drop(count: number): void {
    this.#chunks.splice(0, count)
    this.#first += count
  }

  #fail(error: Error): void {
    if (this.#error !== null || this.#ended || this.#closed) return
    this.#error = error
    if (this.listenerCount('error') > 0) this.emit('error', error)
  }
}

/** A stream is not destroyed with its iterator: `close` decides what becomes of it. */
function iteratorOf(source: Source): AsyncIterator<Chunk> {
  return source instanceof Readable ? source.iterator({ destroyOnReturn: false }) : source[Symbol.asyncIterator]()
}

class Reader implements AsyncIterator<Chunk> {
  /** Chunks read. */
  at = 0
  ended = false
  readonly #read: (reader: Reader) => Promise<Chunk | null>

  constructor(read: (reader: Reader) => Promise<Chunk | null>) {
    this.#read = read
  }

  end(): void {
    this.ended = true
  }

  async next(): Promise<IteratorResult<Chunk>> {
    const chunk = await this.#read(this)
    return chunk === null ? { done: true, value: undefined } : { done: false, value: chunk }
  }

  async return(): Promise<IteratorResult<Chunk>> {
    this.end()
    return { done: true, value: undefined }
  }
}

/** A body that comes as it is read, not one in memory. */
export function isStreamed(body: unknown): body is Source {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body
}

/** The body as one that can be sent again; null where it is one already, or is known to be too large. */
export function keptBody(opts: DispatchOptions, most: number, service: Service): ReplayBody | null {
  const { body } = opts
  if (!isStreamed(body) || (body as unknown) instanceof ReplayBody) return null
  if (Number(headerOf(opts, 'content-length') ?? 0) > most) return null
  return new ReplayBody(
    body,
    most,
    service.state(replayPool, () => new ReplayPool())
  )
}

/**
 * Nothing, bytes in memory, what is kept, or a stream that is `unbegun`. A stream's own word that nobody read it would
 * not do: undici may have begun to, or may still hold it for a connection that comes too late.
 */
export function isReplayable(body: DispatchOptions['body'], unbegun: boolean): boolean {
  if ((body as unknown) instanceof ReplayBody) return (body as unknown as ReplayBody).replayable
  if (isWhole(body)) return true
  return unbegun && !(body instanceof Readable && (body.destroyed || body.readableDidRead))
}

/** All of it is at hand: two attempts at a time may send it. */
export function isWhole(body: DispatchOptions['body']): boolean {
  if (body === null || body === undefined || typeof body === 'string') return true
  if ((body as unknown) instanceof ReplayBody) return (body as unknown as ReplayBody).whole
  return ArrayBuffer.isView(body) || (body as unknown) instanceof ArrayBuffer
}
