import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import type { TransferringBody } from '../../seam.ts'

/** Returns whether the request has a body: framing says so, never the method or the content type. */
export function hasBody(raw: IncomingMessage): boolean {
  if (raw.httpVersionMajor > 1) return !(raw as unknown as Http2ServerRequest).stream.endAfterHeaders
  const { 'content-length': length, 'transfer-encoding': coding } = raw.headers
  return coding !== undefined || (length !== undefined && Number(length) > 0)
}

/** Returns whether the body's length is only known when it ends. */
export function hasUnknownLength(raw: IncomingMessage): boolean {
  return raw.headers['content-length'] === undefined && hasBody(raw)
}

/** Returns the number of listeners that may get a chunk that is read now. */
export function readersOf(stream: Readable): number {
  return stream.listenerCount('data') + stream.listenerCount('readable')
}

/**
 * A client's body, to be read once. Whoever reads it may leave it at any time, as when the exchange with the service
 * breaks; what then still comes is thrown away, since the next request on the connection comes after it. It is read only
 * once this is, so that nothing is asked of a client (`100 Continue`) before a service is there to take it.
 * (A stream of its own over the request's would cost a POST of 16 KB a tenth more.)
 */
export class Body implements AsyncIterableIterator<Buffer, undefined>, TransferringBody {
  /** False once another reader has seen a chunk, which it may keep. */
  transfers = true
  readonly #source: Readable
  #begun = false
  #over = false
  /** Came before they were asked for: a few at most, since the source is paused. */
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
    if (this.#over) return Promise.resolve({ done: true, value: undefined })
    return new Promise((resolve) => {
      this.#waiting = resolve
      if (this.#begun) this.#source.resume()
      else this.#begin()
    })
  }

  return(): Promise<IteratorResult<Buffer, undefined>> {
    this.#chunks.length = 0
    this.#end()
    if (this.#begun) this.#source.resume()
    return Promise.resolve({ done: true, value: undefined })
  }

  #begin(): void {
    this.#begun = true
    const source = this.#source
    if (source.readableDidRead) this.transfers = false
    // First, to see also who listens but once.
    source.prependListener('data', (value: Buffer) => {
      if (readersOf(source) > 1) this.transfers = false
      if (this.#over) return
      if (this.#waiting !== null) this.#answer({ done: false, value })
      else {
        this.#chunks.push(value)
        source.pause()
      }
    })
    source.once('end', () => this.#end()).resume()
  }

  #end(): void {
    this.#over = true
    this.#answer({ done: true, value: undefined })
  }

  #answer(result: IteratorResult<Buffer, undefined>): void {
    this.#waiting?.(result)
    this.#waiting = null
  }
}
