import { Readable } from 'node:stream'
import type { ReadableStream } from 'node:stream/web'

/** Origin of a body. */
export interface Source {
  /** Lets more of the body come. */
  resume(): void
  /** Ends the exchange of a body that is not read to its end. Called for every body, also for one that is complete. */
  abandon(reason: Error | null): void
}

/** The body of a service's response as a stream, which `onSend` hooks may read, pipe, keep, change or leave. */
export class ServiceBody extends Readable {
  readonly #source: Source
  #isChanged = false

  constructor(source: Source) {
    super()
    this.#source = source
    // There may be no other listener, and an error without one ends the process.
    this.on('error', ignore)
  }

  /** No hook has read, changed or decoded any of it: whoever reads it gets what the service has sent. */
  get isWhole(): boolean {
    return !this.#isChanged && !this.readableDidRead
  }

  /** Passes on what the service has sent; null at its end. Returns false if no more should come for now. */
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

/** Returns a payload as the stream that it is, one of the web included; null if it is none. */
export function streamOf(payload: unknown): Readable | null {
  if (typeof payload !== 'object' || payload === null) return null
  if ('pipe' in payload) return payload as Readable
  return 'getReader' in payload ? Readable.fromWeb(payload as ReadableStream) : null
}

/** Destroys a stream that nobody will read. */
export function discard(stream: Readable | null): void {
  stream?.on('error', ignore).destroy()
}
