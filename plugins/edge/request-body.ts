import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import { Readable } from 'node:stream'

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
 * (A PassThrough that the request is piped into would be two streams' work for one's.)
 */
export class Body extends Readable {
  readonly #source: Readable
  #begun = false

  constructor(source: Readable) {
    super()
    this.#source = source
  }

  override _read(): void {
    if (this.#begun) {
      this.#source.resume()
      return
    }
    this.#begun = true
    this.#source.on('data', (chunk: Buffer) => this.#take(chunk))
    this.#source.once('end', () => this.push(null))
  }

  #take(chunk: Buffer): void {
    // What nobody wants any more is read all the same: the next request on the connection comes after it.
    if (this.destroyed) return
    const fault = this.refusal(chunk)
    if (fault !== null) this.destroy(fault)
    else if (!this.push(chunk)) this.#source.pause()
  }

  /** Why the body must not go on with this chunk. */
  protected refusal(_chunk: Buffer): Error | null {
    return null
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    if (this.#begun) this.#source.resume()
    done(error)
  }
}
