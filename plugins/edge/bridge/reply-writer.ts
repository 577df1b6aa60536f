/** Guards streams that Fastify pipes into a response: counts their bytes, and catches errors of writes. */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'

type Write = (chunk?: unknown, encoding?: unknown, done?: unknown) => boolean
type End = (chunk?: unknown, encoding?: unknown, done?: unknown) => unknown

const WRITER = Symbol('jingwei.replyWriter')

/** A response, as Fastify's pipe uses it. */
type Guarded = Omit<ServerResponse, 'write' | 'end'> & { [WRITER]?: ReplyWriter; write: Write; end: End }

/**
 * Writes the stream of one response. With a body longer or shorter than its Content-Length, the client would read one
 * response as part of another (RFC 9112, 8), so such a response fails. Node does not check this.
 */
class ReplyWriter {
  /** False once the response has failed and another one replaces it. */
  isOn = true
  /** Null without a Content-Length. */
  readonly #length: number | null
  readonly #fail: (error: Error) => void
  #written = 0
  /**
   * The chunk that completes the length, held until the stream has ended: if another chunk comes, the client has not yet
   * taken the response for complete.
   */
  #last: { readonly chunk: unknown; readonly encoding: unknown } | null = null
  #hasFailed = false

  constructor(length: number | null, fail: (error: Error) => void) {
    this.#length = length
    this.#fail = fail
  }

  guard(raw: Guarded): void {
    const { write, end } = raw
    raw[WRITER] = this
    raw.write = (chunk, encoding, done) => {
      if (!this.isOn) return write.call(raw, chunk, encoding, done)
      if (this.#hasFailed) return false
      const isText = typeof chunk === 'string'
      this.#written += isText ? Buffer.byteLength(chunk, encoding as BufferEncoding) : (chunk as Buffer).byteLength
      if (this.#length !== null && this.#written > this.#length) return this.#mismatch('more')
      if (this.#written === this.#length && this.#last === null && done === undefined) {
        this.#last = { chunk, encoding }
        return true
      }
      try {
        return write.call(raw, chunk, encoding, done)
      } catch (error) {
        return this.#end(error as Error)
      }
    }
    raw.end = (chunk, encoding, done) => {
      if (!this.isOn || raw.destroyed) return end.call(raw, chunk, encoding, done)
      if (this.#hasFailed) return raw
      if (this.#length !== null && this.#written < this.#length) this.#mismatch('fewer')
      else {
        // Over HTTP/2, Node calls the guarded `write` from `end`.
        this.isOn = false
        const last = this.#last
        try {
          if (last === null) end.call(raw, chunk, encoding, done)
          else end.call(raw, last.chunk, last.encoding, done)
        } catch (error) {
          this.#end(error as Error)
        }
      }
      return raw
    }
  }

  #mismatch(which: 'more' | 'fewer'): false {
    return this.#end(new Error(`it has ${which} bytes than its Content-Length, ${this.#length}`))
  }

  #end(error: Error): false {
    this.#hasFailed = true
    this.#fail(error)
    return false
  }
}

/** Guards the writes of a stream until `releaseWrites`. `fail` is called once, and must end the response. */
export function guardWrites(reply: FastifyReply, fail: (error: Error) => void): void {
  const length = reply.getHeader('content-length')
  const writer = new ReplyWriter(length === undefined ? null : Number(length), fail)
  writer.guard(reply.raw as Guarded)
}

/** Removes the guard of a response that another one replaces. */
export function releaseWrites(raw: ServerResponse): void {
  const writer = (raw as Guarded)[WRITER]
  if (writer !== undefined) writer.isOn = false
}
