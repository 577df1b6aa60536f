import type { Socket } from 'node:net'
import { Readable } from 'node:stream'
import { errors } from '../../undici.ts'
import { free, isTransferring } from './borrowing.ts'
import { discardBody } from './discard-body.ts'
import type { PooledRequest } from './pooled-request.ts'
import { trailerLines } from './request-head.ts'

/** Largest body that is copied, to be written together with the header section. */
const maxSingleWrite = 4 * 1024

/** Methods whose requests have `Content-Length: 0` if they have no body (RFC 9110, 8.6). */
const methodsWithBody = new Set(['POST', 'PUT', 'PATCH', 'QUERY', 'PROPFIND', 'PROPPATCH'])

/** A request body that is being sent. */
export interface Sending {
  /** Called when the socket accepts more data. */
  drained(): void
  /** Discards the rest of the body, because the exchange is over. */
  stop(error: Error | null): void
}

/**
 * Sends a request. Returns null if all of it has been written. Otherwise the body follows, and `done` is called when it
 * has ended or, with an error, has failed. Throws undici's errors for a body that does not match its Content-Length.
 */
export function send(socket: Socket, request: PooledRequest, done: (error: Error | null) => void): Sending | null {
  const { requestHead, method, body } = request
  const { text, length } = requestHead
  if (body === null || body === undefined) {
    if (length !== null && length > 0 && methodsWithBody.has(method))
      throw new errors.RequestContentLengthMismatchError()
    const framing = methodsWithBody.has(method) || length === 0 ? 'content-length: 0\r\n\r\n' : '\r\n'
    socket.write(text + framing, 'latin1')
    request.observed?.bodySent()
    return null
  }
  if (typeof body === 'string' || body instanceof Uint8Array) {
    const bytes = typeof body === 'string' ? Buffer.from(body) : asBuffer(body)
    sendWhole(socket, request, bytes)
    return null
  }
  return body instanceof Readable
    ? new StreamSending(socket, request, done, body)
    : iterate(socket, request, done, body)
}

function sendWhole(socket: Socket, request: PooledRequest, bytes: Buffer): void {
  const { text, length } = request.requestHead
  if (length !== null && length !== bytes.length) throw new errors.RequestContentLengthMismatchError()
  if (bytes.length === 0) {
    socket.write(`${text}${methodsWithBody.has(request.method) ? 'content-length: 0\r\n' : ''}\r\n`, 'latin1')
    request.observed?.bodySent()
    return
  }
  withHead(socket, `${text}content-length: ${bytes.length}\r\n\r\n`, bytes)
  request.bodySent(bytes)
  request.requestSent()
}

function withHead(socket: Socket, text: string, bytes: Buffer): boolean {
  if (bytes.length <= maxSingleWrite) return socket.write(text + bytes.toString('latin1'), 'latin1')
  socket.cork()
  socket.write(text, 'latin1')
  const more = socket.write(bytes)
  socket.uncork()
  return more
}

abstract class StreamedBody implements Sending {
  protected over = false
  readonly #socket: Socket
  readonly #request: PooledRequest
  readonly #done: (error: Error | null) => void
  #begun = false
  #sent = 0
  /** Chunks to free once the kernel has them. */
  readonly #spent: Uint8Array[] = []

  constructor(socket: Socket, request: PooledRequest, done: (error: Error | null) => void) {
    this.#socket = socket
    this.#request = request
    this.#done = done
    // Header section and available bytes leave in one write. Do not wait for more: the headers may suffice for a 413.
    setImmediate(this.#sendHead)
  }

  readonly #sendHead = (): void => {
    if (this.#begun || this.over) return
    this.#begun = true
    const { text } = this.#request.requestHead
    this.#socket.write(`${text}${this.#framing()}`, 'latin1')
  }

  #framing(): string {
    const { length } = this.#request.requestHead
    return length === null ? 'transfer-encoding: chunked\r\n\r\n' : `content-length: ${length}\r\n\r\n`
  }

  drained(): void {
    this.#free()
    this.goOn()
  }

  protected abstract goOn(): void
  abstract stop(error: Error | null): void

  /** Writes a chunk; returns whether the next may follow at once. */
  protected write(chunk: Uint8Array | string): boolean {
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk) : asBuffer(chunk)
    if (bytes.length === 0) return true
    const { text, length } = this.#request.requestHead
    this.#sent += bytes.length
    if (length !== null && this.#sent > length) throw new errors.RequestContentLengthMismatchError()
    const head = this.#begun ? '' : text + this.#framing()
    const more = length === null ? this.#writeChunk(head, bytes) : this.#writePart(head, bytes)
    this.#begun = true
    this.#request.bodySent(bytes)
    if (isTransferring(this.#request.body)) {
      this.#spent.push(bytes)
      if (this.#socket.writableLength === 0) this.#free()
    }
    return more
  }

  #free(): void {
    for (const chunk of this.#spent) free(chunk)
    this.#spent.length = 0
  }

  #writePart(head: string, bytes: Buffer): boolean {
    return head === '' ? this.#socket.write(bytes) : withHead(this.#socket, head, bytes)
  }

  #writeChunk(head: string, bytes: Buffer): boolean {
    const socket = this.#socket
    socket.cork()
    withHead(socket, `${head}${bytes.length.toString(16)}\r\n`, bytes)
    const more = socket.write('\r\n', 'latin1')
    socket.uncork()
    return more
  }

  /** Ends the body: writes the last chunk and the trailer section. */
  protected finish(): void {
    if (this.over) return
    const { requestHead, method, requestTrailers } = this.#request
    const { text, length } = requestHead
    try {
      if (length !== null && this.#sent !== length) throw new errors.RequestContentLengthMismatchError()
      if (length === null) {
        const trailers = requestTrailers === null ? '' : trailerLines(requestTrailers())
        if (this.#begun) this.#socket.write(`0\r\n${trailers}\r\n`, 'latin1')
        else if (trailers !== '')
          this.#socket.write(`${text}transfer-encoding: chunked\r\n\r\n0\r\n${trailers}\r\n`, 'latin1')
        else this.#socket.write(`${text}${methodsWithBody.has(method) ? 'content-length: 0\r\n' : ''}\r\n`, 'latin1')
      } else if (!this.#begun) {
        this.#socket.write(`${text}content-length: 0\r\n\r\n`, 'latin1')
      }
    } catch (error) {
      this.fail(error as Error)
      return
    }
    this.over = true
    this.#request.requestSent()
    this.#done(null)
  }

  protected fail(error: Error): void {
    if (this.over) return
    this.stop(error)
    this.#done(error)
  }
}

/** Sends a stream; the exchange may end before the stream does. */
class StreamSending extends StreamedBody {
  readonly #source: Readable

  constructor(socket: Socket, request: PooledRequest, done: (error: Error | null) => void, source: Readable) {
    super(socket, request, done)
    this.#source = source
    // Never removed: the stream may fail after its end, and an unhandled `error` would end the process.
    source.on('error', (error) => this.fail(error))
    // Repeat events from before the listeners were added, in the next tick.
    if (source.errored !== null) process.nextTick(() => this.fail(source.errored!))
    else if (source.readableEnded) process.nextTick(() => this.finish())
    else if (source.destroyed) process.nextTick(() => this.fail(new errors.RequestAbortedError()))
    else {
      source
        .on('data', (chunk: Buffer | string) => this.#take(chunk))
        .once('end', () => this.finish())
        .once('close', () => this.over || this.fail(new errors.RequestAbortedError()))
        .resume() // the body may be paused
    }
  }

  #take(chunk: Buffer | string): void {
    if (this.over) return
    try {
      if (!this.write(chunk)) this.#source.pause()
    } catch (error) {
      this.fail(error as Error)
    }
  }

  protected override goOn(): void {
    if (!this.over) this.#source.resume()
  }

  stop(error: Error | null): void {
    if (this.over) return
    this.over = true
    discardBody(this.#source, error)
  }
}

/** Sends an iterable body. */
function iterate(socket: Socket, request: PooledRequest, done: (error: Error | null) => void, body: object): Sending {
  if (typeof body === 'object' && (Symbol.asyncIterator in body || Symbol.iterator in body)) {
    return new IteratedBody(socket, request, done, body as Source)
  }
  throw new errors.InvalidArgumentError('body must be a string, a Buffer, a Readable stream, an iterable or null')
}

type Chunk = Uint8Array | string
type Source = AsyncIterable<Chunk> | Iterable<Chunk>

class IteratedBody extends StreamedBody {
  readonly #iterator: AsyncIterator<Chunk> | Iterator<Chunk>
  #wake: (() => void) | null = null

  constructor(socket: Socket, request: PooledRequest, done: (error: Error | null) => void, source: Source) {
    super(socket, request, done)
    this.#iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
    void this.#pump()
  }

  async #pump(): Promise<void> {
    try {
      for (;;) {
        const { done, value } = await this.#iterator.next()
        if (this.over) return
        if (done === true) break
        if (this.write(value)) continue
        await new Promise<void>((resolve) => {
          this.#wake = resolve
        })
        if (this.over) return
      }
      this.finish()
    } catch (error) {
      this.fail(error as Error)
    }
  }

  protected override goOn(): void {
    this.#wake?.()
    this.#wake = null
  }

  stop(): void {
    if (this.over) return
    this.over = true
    this.goOn()
    // Do not wait for a pending `next()`, which may never settle.
    void this.#returnIterator().catch(() => {})
  }

  async #returnIterator(): Promise<void> {
    await this.#iterator.return?.()
  }
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
