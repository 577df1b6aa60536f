import type { Socket } from 'node:net'
import { errors } from '../core/undici.ts'
import { connectionError } from './connection-errors.ts'
import type { ConnectionOptions } from './lifetime.ts'
import { Lifetime } from './lifetime.ts'
import type { Carrier, PooledRequest } from './pooled-request.ts'
import type { ReadBuffer } from './read-buffer.ts'
import type { Sending } from './request-body.ts'
import { send } from './request-body.ts'
import type { ResponseHead } from './response-head.ts'
import { ResponseReader } from './response-reader.ts'

/**
 * Chunks and informational responses in one read, beyond which the next read waits for the next event-loop iteration.
 * libuv reads up to 32 times in a row, and a service may send 40,000 of them in each.
 */
const mostMessages = 1000

/** To whom a connection belongs. */
export interface Owner {
  /** It can take a request. */
  idle(connection: Connection): void
  /** It is gone, or somebody else's. */
  left(connection: Connection): void
}

/** One connection and the request that is on it. */
export class Connection implements Carrier {
  readonly socket: Socket
  readonly #owner: Owner
  readonly #buffer: ReadBuffer | null
  readonly #lifetime: Lifetime
  readonly #reader: ResponseReader
  #request: PooledRequest | null = null
  #sending: Sending | null = null
  /** No further request may be sent on this connection. */
  #closeAfterResponse = false
  /** Idle time of the timer that is running. */
  #idleMs = 0
  #idleTimer: NodeJS.Timeout | null = null
  #bodyTimer: NodeJS.Timeout | null = null
  #gone = false
  /** The service takes no more of a body. */
  #unwritable = false
  /** The service has closed its side. */
  #ended = false

  /** `buffer` is what the socket reads into; null where it is read as a stream. */
  constructor(socket: Socket, owner: Owner, buffer: ReadBuffer | null, options: ConnectionOptions) {
    this.socket = socket
    this.#buffer = buffer
    this.#owner = owner
    this.#lifetime = new Lifetime(options)
    this.#reader = new ResponseReader(options.maxHeaderSize)
    socket.on('drain', this.#onDrain).on('end', this.#onEnd).on('error', this.#onError).on('close', this.#onClose)
    if (buffer === null) socket.on('data', this.#onData)
    else this.#keepForReading()
  }

  /**
   * A service may refuse a body, and close, before it has got all of it (413). What writes the body then fails, and
   * Node destroys the socket with the answer that waits in it unread: not before a turn in which that is read.
   */
  #keepForReading(): void {
    const { socket } = this
    const destroy = socket.destroy
    socket.destroy = (error?: Error & { syscall?: string }) => {
      if (error?.syscall !== 'write' || (this.#sending === null && !this.#unwritable))
        return destroy.call(socket, error)
      // More than one write may have been under way.
      if (this.#unwritable) return socket
      this.#unwritable = true
      this.#closeAfterResponse = true
      this.#sending?.stop(null)
      this.#sending = null
      // Two check phases: the first may run before the poll phase has delivered a response that is in the kernel.
      setImmediate(() => setImmediate(() => destroy.call(socket, error)))
      return socket
    }
  }

  get awaitsBody(): boolean {
    return this.#sending !== null && !this.socket.writableNeedDrain
  }

  run(request: PooledRequest): void {
    this.#request = request
    this.#reader.begin(request)
    if (!request.begin(this)) {
      // Nothing has been sent.
      this.#request = null
      this.#reader.cancel()
      this.rest()
      return
    }
    const { requestHead, upgrade } = request
    const last = this.#lifetime.begin()
    this.#closeAfterResponse = last || requestHead.last || upgrade !== null
    request.observed?.sending(requestHead, this.socket)
    try {
      this.#sending = send(this.socket, request, this.#onSent)
    } catch (error) {
      request.abort(error as Error)
    }
  }

  /** So many bytes have come into the buffer. False: no more until the request resumes. */
  readLent(bytes: number): boolean {
    const buffer = this.#buffer!
    const goesOn = this.#read(buffer.current, bytes, true)
    if (buffer.isToChange(bytes)) buffer.choose(this.#reader.remaining, !goesOn)
    return goesOn
  }

  readonly #onData = (chunk: Buffer) => {
    if (!this.#read(chunk, chunk.length, false)) this.socket.pause()
  }

  #read(buffer: Buffer, end: number, lent: boolean): boolean {
    const request = this.#request
    try {
      this.#reader.read(buffer, 0, end, lent)
    } catch (error) {
      this.#fail(error as Error)
      return true
    }
    this.#after(request)
    if (this.#reader.takeMessages() > mostMessages) {
      setImmediate(this.#readOn)
      return false
    }
    // A pause applies to the body: the header section is read to its end.
    return request === null || !request.paused || !this.#reader.inBody
  }

  #after(request: PooledRequest | null): void {
    if (request === null) {
      // No request is on the connection, so that bytes on it answer none.
      if (this.#reader.surplus !== null) this.#leave()
      return
    }
    if (this.#request !== request) return
    if (request.switching !== null) this.#handOver(request, request.switching)
    else if (this.#reader.idle) this.#answered()
    else if (this.#reader.inBody && request.bodyTimeout > 0) {
      if (this.#bodyTimer === null) this.#bodyTimer = setTimeout(this.#onSilence, request.bodyTimeout)
      else this.#bodyTimer.refresh()
    }
  }

  readonly #readOn = () => {
    // The connection may have been handed over by now.
    if (!this.#gone && (this.#request?.paused !== true || !this.#reader.inBody)) this.socket.resume()
  }

  resume(): void {
    const request = this.#request
    // Within the read loop, which looks at `paused` again, there is nothing to do.
    if (request === null || this.#reader.busy) return
    this.#buffer?.resumed()
    try {
      if (this.#reader.holds) this.#reader.readHeld()
      if (this.#ended && !this.#reader.holds) this.#finish()
    } catch (error) {
      this.#fail(error as Error)
      return
    }
    this.#after(request)
    if (!request.paused) this.socket.resume()
  }

  /** Ends it where it is idle. */
  close(): void {
    if (this.#request === null) this.#leave()
  }

  destroy(reason: Error): void {
    this.#fail(reason)
  }

  abort(reason: Error): void {
    this.#detachRequest(reason)
    this.#leave()
  }

  /** The whole answer is here. */
  #answered(): void {
    const { persistent, surplus, idleHintMs } = this.#reader
    const reusable =
      persistent && surplus === null && this.#sending === null && !this.#closeAfterResponse && this.socket.writable
    this.#detachRequest(null)
    if (reusable) this.rest(idleHintMs)
    else this.#leave()
  }

  /** The connection is idle, and closes if that lasts. */
  rest(idleHintMs: number | null = null): void {
    if (this.#gone) return
    const idleMs = this.#lifetime.idleMs(idleHintMs)
    if (idleMs <= 0) {
      this.#leave()
      return
    }
    if (this.#idleTimer !== null && this.#idleMs === idleMs) {
      this.#idleTimer.refresh()
    } else {
      if (this.#idleTimer !== null) clearTimeout(this.#idleTimer)
      this.#idleTimer = setTimeout(this.#onIdle, idleMs).unref()
      this.#idleMs = idleMs
    }
    this.#owner.idle(this)
  }

  #handOver(request: PooledRequest, head: ResponseHead): void {
    const { socket } = this
    const { surplus } = this.#reader
    socket.off('drain', this.#onDrain).off('end', this.#onEnd).off('error', this.#onError).off('close', this.#onClose)
    socket.off('data', this.#onData).pause()
    if (surplus !== null) socket.unshift(surplus)
    // As a stream that nobody has read yet: whoever listens to it gets it flowing.
    socket.readableFlowing = null
    this.#detachRequest(null)
    this.#gone = true
    this.#owner.left(this)
    request.upgraded(head, socket)
  }

  #fail(reason: Error): void {
    const request = this.#request
    const error = request === null ? reason : connectionError(reason)
    this.#detachRequest(error)
    this.#leave()
    request?.fail(error)
  }

  #detachRequest(error: Error | null): void {
    if (this.#bodyTimer !== null) clearTimeout(this.#bodyTimer)
    this.#bodyTimer = null
    this.#request = null
    const sending = this.#sending
    this.#sending = null
    sending?.stop(error)
  }

  #leave(): void {
    this.socket.destroy()
    if (this.#gone) return
    this.#gone = true
    if (this.#idleTimer !== null) clearTimeout(this.#idleTimer)
    this.#owner.left(this)
  }

  #finish(): void {
    if (!this.#reader.finish()) throw new errors.SocketError('other side closed')
  }

  readonly #onSent = (error: Error | null) => {
    this.#sending = null
    if (error !== null) this.#request?.abort(error)
  }

  readonly #onDrain = () => this.#sending?.drained()

  readonly #onEnd = () => {
    const request = this.#request
    this.#ended = true
    if (request === null) {
      this.#leave()
      return
    }
    // Its reader has not got all of it yet.
    if (this.#reader.holds) return
    try {
      this.#finish()
    } catch (error) {
      this.#fail(error as Error)
      return
    }
    this.#after(request)
  }

  readonly #onError = (error: Error) => this.#fail(error)

  readonly #onClose = () => {
    if (this.#ended && this.#reader.holds && this.#request !== null) this.#leave()
    else this.#fail(new errors.SocketError('closed'))
  }

  readonly #onIdle = () => {
    if (this.#request === null) this.#leave()
  }

  readonly #onSilence = () => {
    if (this.#request?.paused) this.#bodyTimer?.refresh()
    else this.#fail(new errors.BodyTimeoutError())
  }
}
