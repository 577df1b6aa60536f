import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'
import type { Collector } from '../protocol/read-body.ts'
import { collect } from '../protocol/read-body.ts'

/** Events whose listeners need the stream. */
const ofReaders = ['data', 'readable', 'end', 'close'] as const

/** Exchange that a body is read from. */
export interface Source {
  /** Resumes the body. */
  resume(): void
  /** Ends the exchange if the body was not read to its end. Called for every body, also for a complete one. */
  abandon(reason: Error | null): void
}

/** The body of a service's response as a stream, which `onSend` hooks may read, pipe, keep, change or ignore. */
export class ServiceBody extends Readable {
  readonly #source: Source
  #isChanged = false
  #hasChunks = false
  #collector: Collector | null = null

  constructor(source: Source) {
    super()
    this.#source = source
    // An error without a listener would end the process.
    this.on('error', ignore)
  }

  /** True if no hook has read, changed or decoded the body, so that its reader gets the bytes of the service. */
  get isUntouched(): boolean {
    return !this.#isChanged && !this.readableDidRead
  }

  /** Pushes a chunk of the service; null at the end. Returns false if the service should pause. */
  pass(chunk: Buffer | null): boolean {
    const collector = this.#collector
    if (collector === null || this.destroyed) {
      this.#hasChunks = true
      return super.push(chunk)
    }
    if (chunk === null) collector.end()
    if (chunk === null || !collector.add(chunk)) this.#collector = null
    return true
  }

  [collect](collector: Collector): boolean {
    const isRead = this.#hasChunks || this.destroyed || !this.isUntouched || this.readableFlowing !== null
    if (isRead || ofReaders.some((event) => this.listenerCount(event) > 0)) return false
    this.#collector = collector
    return true
  }

  override push(chunk: unknown, encoding?: BufferEncoding): boolean {
    this.#isChanged = true
    return super.push(chunk, encoding)
  }

  override unshift(chunk: unknown, encoding?: BufferEncoding): void {
    this.#isChanged = true
    super.unshift(chunk, encoding)
  }

  override setEncoding(encoding: BufferEncoding): this {
    this.#isChanged = true
    return super.setEncoding(encoding)
  }

  override _read(): void {
    this.#source.resume()
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#source.abandon(error)
    const collector = this.#collector
    // Later, as the events of a stream: the caller is not finished.
    if (collector !== null) process.nextTick(() => collector.fail(error ?? new Error('the body was destroyed')))
    done(error)
  }
}

function ignore(): void {}

/** Returns a payload as a Node stream, also if it is a web stream; null if it is not a stream. */
export function streamOf(payload: unknown): Readable | null {
  if (typeof payload !== 'object' || payload === null) return null
  if ('pipe' in payload) return payload as Readable
  return 'getReader' in payload ? Readable.fromWeb(payload as ReadableStream) : null
}

/** Destroys a stream that will not be read. */
export function discard(stream: Readable | null): void {
  stream?.on('error', ignore).destroy()
}
