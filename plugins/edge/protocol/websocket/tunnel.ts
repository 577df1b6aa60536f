import type { Duplex } from 'node:stream'
import { bytesTaken } from '../bytes-taken.ts'
import { closeFrame, FrameReader } from './frames.ts'

/** Time for both sides to respond to a close frame; then the connections are destroyed. */
const closeGraceMs = 1000
/** Longest time without bytes after one side has ended, and for a side to read its last bytes. */
const halfClosedMs = 10_000

interface Side {
  readonly socket: Duplex
  /** Frames on their way to this side. */
  readonly frames: FrameReader
  readonly closeFrame: Buffer
  /** True once the gateway has sent its close frame to this side. */
  closeSent: boolean
  bytes: number
  /** Timer that runs while bytes wait for this side. */
  stall: NodeJS.Timeout | undefined
}

/**
 * Joins the connections of a client and a service that speak WebSocket. Bytes pass unchanged, with backpressure. Frames
 * are followed only to insert a close frame between two of them.
 */
export class Tunnel {
  readonly #client: Side
  readonly #service: Side
  readonly #idleMs: number
  readonly #onEnd: (error: Error | null) => void
  #timer: NodeJS.Timeout | undefined
  #closing = false
  #open = 2
  #error: Error | null = null

  constructor(client: Duplex, service: Duplex, idleMs: number, onEnd: (error: Error | null) => void) {
    this.#client = sideOf(client, closeFrame.toClient)
    this.#service = sideOf(service, closeFrame.toService)
    this.#idleMs = idleMs
    this.#onEnd = onEnd
    this.#startTimer(idleMs)
    this.#join(this.#client, this.#service)
    this.#join(this.#service, this.#client)
  }

  /** Bytes sent to the client. */
  get bytesSent(): number {
    return this.#client.bytes
  }

  /** Sends close code 1001 to both sides, each at its next frame boundary, and destroys the connections after a second. */
  close(): void {
    if (this.#closing) return
    this.#closing = true
    this.#startTimer(closeGraceMs)
    this.#sendClose(this.#client)
    this.#sendClose(this.#service)
  }

  /** Passes the bytes of one side to the other. The socket may have ended already: a client may disconnect before its 101. */
  #join(from: Side, to: Side): void {
    const { socket } = from
    const onEnd = () => this.#endOf(to)
    const onClose = () => this.#closeOf(from, to)
    socket.on('error', (error) => this.#fail(error, from))
    if (socket.closed) {
      // Later, when both sides are joined.
      process.nextTick(onClose)
      return
    }
    const resume = () => {
      clearTimeout(to.stall)
      this.#refreshTimer()
      socket.resume()
    }
    socket.on('data', (chunk: Buffer) => {
      if (!this.#pass(chunk, to)) {
        socket.pause()
        to.socket.once('drain', resume)
        this.#boundStall(to)
      }
      // The side has responded to the gateway's close frame: the closing endpoint ends the connection.
      if (from.closeSent && to.frames.closed) from.socket.end()
    })
    if (socket.readableEnded) process.nextTick(onEnd)
    else socket.once('end', onEnd)
    socket.once('close', onClose)
    socket.resume()
  }

  #endOf(to: Side): void {
    to.socket.end()
    if (!this.#closing) this.#startTimer(this.#idleMs === 0 ? halfClosedMs : Math.min(this.#idleMs, halfClosedMs))
  }

  #closeOf({ socket }: Side, to: Side): void {
    if (--this.#open === 0) {
      for (const timer of [this.#timer, this.#client.stall, this.#service.stall]) clearTimeout(timer)
      this.#onEnd(this.#error)
      return
    }
    // Bytes that came before a clean end are still being written to the other side.
    if (socket.readableEnded) {
      this.#endOf(to)
      to.socket.resume()
    } else to.socket.destroy()
  }

  /** Writes a chunk to `to`; returns false if it cannot take more for now. */
  #pass(chunk: Buffer, to: Side): boolean {
    const { socket, frames } = to
    const ended = to.closeSent || socket.writableEnded || socket.destroyed
    const boundary = frames.read(chunk)
    // Dropped bytes must not refresh the timer: the pings of a service would keep the tunnel of a disconnected client open.
    if (ended) return true
    this.#refreshTimer()
    const passed = this.#closing && !frames.closed && boundary >= 0 ? chunk.subarray(0, boundary) : chunk
    to.bytes += passed.length
    const more = socket.write(passed)
    if (this.#closing && boundary >= 0) this.#sendClose(to, true)
    return more
  }

  #sendClose(to: Side, atBoundary = to.frames.atBoundary): void {
    const { socket, frames } = to
    if (!atBoundary || to.closeSent || frames.closed || socket.writableEnded || socket.destroyed) return
    to.closeSent = true
    to.bytes += to.closeFrame.length
    socket.write(to.closeFrame)
  }

  /** Restarts the idle timeout, as a byte has moved. */
  #refreshTimer(): void {
    // After the service has ended, bytes of the client are dropped, so they must not extend the time.
    if (!this.#closing && !this.#service.socket.readableEnded) this.#timer?.refresh()
  }

  /** Destroys the tunnel if a side reads nothing for the idle timeout, even if it keeps sending. */
  #boundStall(to: Side): void {
    if (this.#idleMs === 0) return
    const taken = bytesTaken(to.socket)
    to.stall = setTimeout(() => {
      if (bytesTaken(to.socket) === taken) this.#destroy()
      else this.#boundStall(to)
    }, this.#idleMs)
  }

  #startTimer(ms: number): void {
    clearTimeout(this.#timer)
    if (ms > 0) this.#timer = setTimeout(() => this.#expire(), ms)
  }

  #expire(): void {
    const halfClosed = this.#client.socket.readableEnded || this.#service.socket.readableEnded
    if (!this.#closing && !halfClosed) this.close()
    else this.#destroy()
  }

  #fail(error: Error, side: Side): void {
    if (side === this.#service) this.#error ??= error
    this.#destroy()
  }

  #destroy(): void {
    this.#client.socket.destroy()
    this.#service.socket.destroy()
  }
}

function sideOf(socket: Duplex, frame: Buffer): Side {
  return { socket, frames: new FrameReader(), closeFrame: frame, closeSent: false, bytes: 0, stall: undefined }
}
