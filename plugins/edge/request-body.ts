import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import type { Readable } from 'node:stream'
import { PassThrough } from 'node:stream'

/** Whether a body comes with the request: framing says so, never the method or the content type. */
export function hasBody(raw: IncomingMessage): boolean {
  if (raw.httpVersionMajor > 1) return !(raw as unknown as Http2ServerRequest).stream.endAfterHeaders
  const { 'content-length': length, 'transfer-encoding': coding } = raw.headers
  return coding !== undefined || (length !== undefined && Number(length) > 0)
}

/** Whether the body's length is only known when it ends. */
export function hasUnknownLength(raw: IncomingMessage): boolean {
  return raw.headers['content-length'] === undefined && hasBody(raw)
}

/**
 * A body at one remove. Who reads it may destroy it, as undici does when the exchange with the service breaks;
 * destroying the request itself would close the client's connection before it has got its answer. The request is read
 * only once this is, so that nothing is asked of a client (`100 Continue`) before a service is there to take it.
 */
export class Body extends PassThrough {
  #source: Readable | null

  constructor(source: Readable) {
    super()
    this.#source = source
  }

  override _read(size: number): void {
    if (this.#source !== null) {
      const source = this.#source
      this.#source = null
      source.pipe(this)
      // What nobody wants any more is read all the same: the next request on the connection comes after it.
      this.once('close', () => source.resume())
    }
    super._read(size)
  }
}
