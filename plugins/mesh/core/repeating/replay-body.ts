import { EventEmitter } from 'node:events'
import { Readable } from 'node:stream'
import { isTransferring } from '../../http/borrowing.ts'
import { discardBody } from '../../http/discard-body.ts'
import { headerOf } from '../request-fields.ts'
import type { Service } from '../service.ts'
import { StateKey } from '../service-state.ts'
import type { DispatchOptions } from '../types.ts'

type Chunk = string | Uint8Array
type Source = AsyncIterable<Chunk>

/** Bytes of a body that are buffered if no retry policy sets a limit. */
export const defaultBufferBytes = 64 * 1024
/** Most chunks that are buffered: thousands of tiny chunks would take far more memory than their bytes. */
const mostChunks = 1024
/** Most bytes that all requests of a service may buffer together. */
const mostTogether = 64 * 1024 * 1024

/** Memory that all buffered bodies of a service share. */
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
 * A streamed request body that can be sent again: chunks that the first attempt reads are buffered, up to a limit; the
 * next attempt begins with these and goes on with the rest of the stream. No attempt waits for the complete body, and
 * nothing is read before a reader asks. undici reads the body as an async iterable, which it does not destroy when an
 * attempt ends. `error` is emitted, if there are listeners, before a reader gets the error.
 */
export class ReplayBody extends EventEmitter implements Source {
  readonly #source: Source
  readonly #most: number
  readonly #pool: ReplayPool
  #iterator: AsyncIterator<Chunk> | null = null
  #pulling: Promise<void> | null = null
  #chunks: Chunk[] = []
  /** Index in the body of the first chunk that is still buffered. */
  #first = 0
  #bytes = 0
  #buffering = true
  #ended = false
  #closed = false
  #error: Error | null = null
  #reader: Reader | null = null
  #readers = 0

  constructor(source: Source, most: number, pool: ReplayPool) {
    super()
    // Each attempt adds one or two listeners.
    this.setMaxListeners(0)
    this.#source = source
    this.#most = most
    this.#pool = pool
    // The source may fail while no attempt reads; the next read throws the error.
    if (source instanceof Readable) source.on('error', (error) => this.#fail(error))
  }

  /** True if another attempt can read the body from the beginning. */
  get replayable(): boolean {
    return this.#buffering && this.#error === null && !this.#closed
  }

  /** True if the complete body is buffered, so that several attempts may read it at the same time. */
  get whole(): boolean {
    return this.replayable && this.#ended
  }

  /** True if chunks may be freed after sending: no other attempt can need them. */
  get transfers(): boolean {
    return !this.#buffering && this.#readers === 1 && isTransferring(this.#source)
  }

  /** Same meaning as a stream's. */
  get readableEnded(): boolean {
    return this.#ended
  }

  /** Returns a reader. Until the body is complete there is only one: a new reader ends the previous one. */
  [Symbol.asyncIterator](): AsyncIterator<Chunk> {
    if (!this.whole) this.#reader?.end()
    this.#readers++
    this.#reader = new Reader((reader) => this.#read(reader))
    return this.#reader
  }

  /** Stops buffering: no further attempt will need the body. The current reader goes on. */
  seal(): void {
    if (!this.#ended) this.#stopBuffering()
  }

  /** Ends with the call: readers fail, and the rest of the source is discarded. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.#stopBuffering()
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
      // Throw instead of returning the end: an abandoned attempt must not send the body as complete.
      if (this.#closed || reader.ended || offset < 0) throw new Error('the body is not for this attempt any more')
      const chunk = this.#chunks[offset]
      if (chunk !== undefined) {
        reader.at++
        if (!this.#buffering && !this.#ended) this.#drop(offset + 1)
        return chunk
      }
      if (this.#error !== null) throw this.#error
      if (this.#ended) return null
      this.#pulling ??= this.#pull()
      await this.#pulling
    }
  }

  /** Reads the next chunk of the source. Never rejects, because there may be no reader left to handle it. */
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
    if (!this.#buffering) return
    const bytes = typeof chunk === 'string' ? Buffer.byteLength(chunk) : chunk.byteLength
    const fits = this.#bytes + bytes <= this.#most && this.#chunks.length <= mostChunks && this.#pool.take(bytes)
    if (fits) this.#bytes += bytes
    else this.#stopBuffering()
  }

  #stopBuffering(): void {
    if (!this.#buffering) return
    this.#buffering = false
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

/** Returns an iterator whose end does not destroy the stream: `close` does that if needed. */
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

/** Returns whether a body is streamed, not in memory. */
export function isStreamed(body: unknown): body is Source {
  return typeof body === 'object' && body !== null && Symbol.asyncIterator in body
}

/** Wraps a streamed body so that it can be sent again; null if it is wrapped already, or known to be too large. */
export function replayableBody(opts: DispatchOptions, most: number, service: Service): ReplayBody | null {
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
 * Returns whether a body can be sent again: no body, bytes in memory, a buffered one, or a stream of which nothing was
 * read (`unbegun`). The state of the stream alone is not sufficient: a client may have begun to read it, or may still
 * hold it for a connection that is established too late.
 */
export function isReplayable(body: DispatchOptions['body'], unbegun: boolean): boolean {
  if ((body as unknown) instanceof ReplayBody) return (body as unknown as ReplayBody).replayable
  if (isWhole(body)) return true
  return unbegun && !(body instanceof Readable && (body.destroyed || body.readableDidRead))
}

/** Returns whether the whole body is in memory, so that two attempts can send it at the same time. */
export function isWhole(body: DispatchOptions['body']): boolean {
  if (body === null || body === undefined || typeof body === 'string') return true
  if ((body as unknown) instanceof ReplayBody) return (body as unknown as ReplayBody).whole
  return ArrayBuffer.isView(body) || (body as unknown) instanceof ArrayBuffer
}
