import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import { Readable as Stream } from 'node:stream'
import type { TransferringBody } from '../../seam.ts'

/** Returns whether the request has a body. Only the framing decides, not the method or the content type. */
export function hasBody(raw: IncomingMessage): boolean {
  if (raw.httpVersionMajor > 1) return !(raw as unknown as Http2ServerRequest).stream.endAfterHeaders
  const { 'content-length': length, 'transfer-encoding': coding } = raw.headers
  return coding !== undefined || (length !== undefined && Number(length) > 0)
}

/** Returns whether the client has disconnected before its request was read to the end. */
export function isCutOff(raw: IncomingMessage): boolean {
  // Over HTTP/2, such a request is not destroyed, but ended.
  if (raw.httpVersionMajor > 1) return (raw as unknown as Http2ServerRequest).stream.aborted
  return raw.destroyed && !raw.readableEnded
}

/** Returns whether the length of the body is unknown before its end. */
export function hasUnknownLength(raw: IncomingMessage): boolean {
  return raw.headers['content-length'] === undefined && hasBody(raw)
}

/**
 * Returns a stream of chunks of a body that were read, and then the rest of it. If the client disconnects before anything reads
 * the stream, its error ends nothing: the request has failed anyway.
 */
export const bodyFrom = (chunks: readonly Buffer[], rest: Readable): Readable =>
  Stream.from(followedBy(chunks, rest)).on('error', () => {})

async function* followedBy(chunks: readonly Buffer[], rest: Readable): AsyncGenerator<Buffer> {
  yield* chunks
  yield* rest as AsyncIterable<Buffer>
}

/** Returns the number of listeners that may get a chunk that is read now. */
export function readersOf(stream: Readable): number {
  return stream.listenerCount('data') + stream.listenerCount('readable')
}

/**
 * A client's body, to be read once. The reader may stop at any time, for example when the exchange with the service fails;
 * the rest is then read and dropped, since the next request on the connection follows it. The source is read only when this
 * body is, so that a client gets `100 Continue` only when a service can take its body. (Another stream around the request
 * would cost a tenth more CPU for a POST of 16 KB.)
 */
export class Body implements AsyncIterableIterator<Buffer, undefined>, TransferringBody {
  /** False once another reader has seen a chunk, which it may keep. */
  transfers = true
  readonly #source: Readable
  #isStarted = false
  #isOver = false
  /** Chunks that arrived before they were requested: a few at most, since the source is paused. */
  readonly #chunks: Buffer[] = []
  #waiting: ((result: IteratorResult<Buffer, undefined>) => void) | null = null

  constructor(source: Readable) {
    this.#source = source
  }

  [Symbol.asyncIterator](): this {
    return this
  }

  next(): Promise<IteratorResult<Buffer, undefined>> {
    const value = this.#chunks.shift()
    if (value !== undefined) return Promise.resolve({ done: false, value })
    if (this.#isOver) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => {
      this.#waiting = resolve
      if (this.#isStarted) this.#source.resume()
      else this.#begin()
    })
  }

  return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#chunks.length = 0
    this.#end()
    if (this.#isStarted) this.#source.resume()
    return Promise.resolve({ done: true, value: undefined })
  }

  #begin(): void {
    this.#isStarted = true
    const source = this.#source
    if (source.readableDidRead) this.transfers = false
    // Prepended, so that `once` listeners are still registered when the readers are counted.
    source.prependListener('data', (value: Buffer) => {
      if (readersOf(source) > 1) this.transfers = false
      if (this.#isOver) return
      if (this.#waiting !== null) this.#deliver({ done: false, value })
      else {
        this.#chunks.push(value)
        source.pause()
      }
    })
    source.once('end', () => this.#end()).resume()
  }

  #end(): void {
    this.#isOver = true
    this.#deliver({ done: true, value: undefined })
  }

  #deliver(result: IteratorResult<Buffer, undefined>): void {
    this.#waiting?.(result)
    this.#waiting = null
  }
}
