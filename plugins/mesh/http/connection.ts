import type { Socket } from 'node:net'
import { errors } from '../../undici.ts'
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
 * Most chunks and informational responses in one read; beyond this the next read waits for the next event-loop
 * iteration. libuv reads up to 32 times in a row, and each read may contain 40,000 of them.
 */
const mostMessages = 1000

/** Owner of a connection: its pool. */
export interface Owner {
  /** Called when the connection can take a request. */
  onIdle(connection: Connection): void
  /** Called when the connection is closed, or handed over after an upgrade. */
  onClosed(connection: Connection): void
}

/** One connection and its current request. */
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
  #closed = false
  /** A write has failed: the service no longer reads the request body. */
  #unwritable = false
  /** The service has closed its side. */
  #ended = false

  /** Takes the buffer into which the socket reads; null if the socket is read as a stream. */
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
   * Delays the destruction of the socket after a failed write. A service may respond (413) and close before it has read
   * the whole request body. The next write then fails, and Node would destroy the socket with the response in it
   * unread.
   */
  #keepForReading(): void {
    const { socket } = this
    const destroy = socket.destroy
    socket.destroy = (error?: Error & { syscall?: string }) => {
      if (error?.syscall !== 'write' || (this.#sending === null && !this.#unwritable))
        return destroy.call(socket, error)
      // Several writes may fail.
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
      // The request was aborted before anything was sent.
      this.#request = null
      this.#reader.cancel()
      this.makeIdle()
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

  /** Reads bytes that have arrived in the buffer. Returns false to stop reading until the request resumes. */
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
    this.#afterRead(request)
    if (this.#reader.resetMessages() > mostMessages) {
      setImmediate(this.#continueReading)
      return false
    }
    // A pause applies to the body: the header section is read to its end.
    return request === null || !request.paused || !this.#reader.inBody
  }

  #afterRead(request: PooledRequest | null): void {
    if (request === null) {
      // Bytes without a request: the connection cannot be used any more.
      if (this.#reader.surplus !== null) this.#closeNow()
      return
    }
    if (this.#request !== request) return
    if (request.switching !== null) this.#handOver(request, request.switching)
    else if (this.#reader.idle) this.#complete()
    else if (this.#reader.inBody && request.bodyTimeout > 0) {
      if (this.#bodyTimer === null) this.#bodyTimer = setTimeout(this.#onBodyTimeout, request.bodyTimeout)
      else this.#bodyTimer.refresh()
    }
  }

  readonly #continueReading = () => {
    // The connection may have been handed over in the meantime.
    if (!this.#closed && (this.#request?.paused !== true || !this.#reader.inBody)) this.socket.resume()
  }

  resume(): void {
    const request = this.#request
    // Inside the read loop, which checks `paused` again, there is nothing to do.
    if (request === null || this.#reader.busy) return
    this.#buffer?.resumed()
    try {
      if (this.#reader.holds) this.#reader.readHeld()
      if (this.#ended && !this.#reader.holds) this.#finish()
    } catch (error) {
      this.#fail(error as Error)
      return
    }
    this.#afterRead(request)
    if (!request.paused) this.socket.resume()
  }

  /** Closes the connection if it is idle. */
  close(): void {
    if (this.#request === null) this.#closeNow()
  }

  destroy(reason: Error): void {
    this.#fail(reason)
  }

  abort(reason: Error): void {
    this.#detachRequest(reason)
    this.#closeNow()
  }

  /** Ends the exchange after a complete response: reuses the connection or closes it. */
  #complete(): void {
    const { persistent, surplus, idleHintMs } = this.#reader
    const reusable =
      persistent && surplus === null && this.#sending === null && !this.#closeAfterResponse && this.socket.writable
    this.#detachRequest(null)
    if (reusable) this.makeIdle(idleHintMs)
    else this.#closeNow()
  }

  /** Makes the connection idle, and starts its idle timeout. */
  makeIdle(idleHintMs: number | null = null): void {
    if (this.#closed) return
    const idleMs = this.#lifetime.idleMs(idleHintMs)
    if (idleMs <= 0) {
      this.#closeNow()
      return
    }
    if (this.#idleTimer !== null && this.#idleMs === idleMs) {
      this.#idleTimer.refresh()
    } else {
      if (this.#idleTimer !== null) clearTimeout(this.#idleTimer)
      this.#idleTimer = setTimeout(this.#onIdle, idleMs).unref()
      this.#idleMs = idleMs
    }
    this.#owner.onIdle(this)
  }

  #handOver(request: PooledRequest, head: ResponseHead): void {
    const { socket } = this
    const { surplus } = this.#reader
    socket.off('drain', this.#onDrain).off('end', this.#onEnd).off('error', this.#onError).off('close', this.#onClose)
    socket.off('data', this.#onData).pause()
    if (surplus !== null) socket.unshift(surplus)
    // Reset to the initial state of a stream, so that a `data` listener starts it.
    socket.readableFlowing = null
    this.#detachRequest(null)
    this.#closed = true
    this.#owner.onClosed(this)
    request.upgraded(head, socket)
  }

  #fail(reason: Error): void {
    const request = this.#request
    const error = request === null ? reason : connectionError(reason)
    this.#detachRequest(error)
    this.#closeNow()
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

  #closeNow(): void {
    this.socket.destroy()
    if (this.#closed) return
    this.#closed = true
    if (this.#idleTimer !== null) clearTimeout(this.#idleTimer)
    this.#owner.onClosed(this)
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
      this.#closeNow()
      return
    }
    // The paused request has not read all data yet.
    if (this.#reader.holds) return
    try {
      this.#finish()
    } catch (error) {
      this.#fail(error as Error)
      return
    }
    this.#afterRead(request)
  }

  readonly #onError = (error: Error) => this.#fail(error)

  readonly #onClose = () => {
    if (this.#ended && this.#reader.holds && this.#request !== null) this.#closeNow()
    else this.#fail(new errors.SocketError('closed'))
  }

  readonly #onIdle = () => {
    if (this.#request === null) this.#closeNow()
  }

  readonly #onBodyTimeout = () => {
    if (this.#request?.paused) this.#bodyTimer?.refresh()
    else this.#fail(new errors.BodyTimeoutError())
  }
}
