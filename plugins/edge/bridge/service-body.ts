import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'

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
    return super.push(chunk)
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
