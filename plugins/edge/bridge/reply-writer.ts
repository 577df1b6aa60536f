/** Streams that Fastify pipes into a response: their bytes are counted, and what fails while they are written is caught. */
import type { ServerResponse } from 'node:http'
import type { FastifyReply } from 'fastify'

type Write = (chunk?: unknown, encoding?: unknown, done?: unknown) => boolean
type End = (chunk?: unknown, encoding?: unknown, done?: unknown) => unknown

const WRITER = Symbol('jingwei.replyWriter')

/** A response, as Fastify's pipe uses it. */
type Guarded = Omit<ServerResponse, 'write' | 'end'> & { [WRITER]?: ReplyWriter; write: Write; end: End }

/**
 * Writes the stream of one response. A body that is longer or shorter than its Content-Length would have the client read
 * the next response as part of this one (RFC 9112, 8), so it fails. Node checks neither.
 */
class ReplyWriter {
  /** Off once the response has failed and another one takes its place. */
  isOn = true
  /** Null without a Content-Length. */
  readonly #length: number | null
  readonly #fail: (error: Error) => void
  #written = 0
  /**
   * The chunk that completes the length, until the stream has ended: the client has not taken the response for whole when
   * another chunk comes.
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
      if (this.#length !== null && this.#written > this.#length) return this.#misfit('more')
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
      if (this.#length !== null && this.#written < this.#length) this.#misfit('fewer')
      else {
        // Over HTTP/2, Node writes by the guarded method what it is given here.
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

  #misfit(which: 'more' | 'fewer'): false {
    return this.#end(new Error(`it has ${which} bytes than its Content-Length, ${this.#length}`))
  }

  #end(error: Error): false {
    this.#hasFailed = true
    this.#fail(error)
    return false
  }
}

/** Guards the writes of a stream until `releaseWrites`. `fail` is called once, and ends the response. */
export function guardWrites(reply: FastifyReply, fail: (error: Error) => void): void {
  const length = reply.getHeader('content-length')
  const writer = new ReplyWriter(length === undefined ? null : Number(length), fail)
  writer.guard(reply.raw as Guarded)
}

/** Ends the guard of a response that another one replaces. */
export function releaseWrites(raw: ServerResponse): void {
  const writer = (raw as Guarded)[WRITER]
  if (writer !== undefined) writer.isOn = false
}
