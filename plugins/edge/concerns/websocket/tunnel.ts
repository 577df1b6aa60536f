import type { Duplex } from 'node:stream'
import { bytesTaken } from '../../protocol/bytes-taken.ts'
import { closeFrame, FrameReader } from './frames.ts'

/** Time that both ends have to answer a close frame; then the connections are destroyed. */
const closeGraceMs = 1000
/**
 * Longest silence of one side after the other has ended, and the time that a side has for the last bytes for it once
 * nothing more can come back.
 */
const halfClosedMs = 10_000

interface Side {
  readonly socket: Duplex
  /** Frames on their way to this side. */
  readonly frames: FrameReader
  readonly closeFrame: Buffer
  /** Our own close frame was sent to it. */
  closeSent: boolean
  bytes: number
  /** Runs while bytes wait for this side. */
  stall: NodeJS.Timeout | undefined
}

/**
 * A client's and a service's connection joined, once both speak WebSocket. Bytes pass as they are, each side as
 * fast as the other reads; frames are only followed so that a close frame can be put between two of them.
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
    this.#wait(idleMs)
    this.#join(this.#client, this.#service)
    this.#join(this.#service, this.#client)
  }

  /** Bytes that went to the client. */
  get bytesSent(): number {
    return this.#client.bytes
  }

  /** Says 1001 to both ends, as soon as a frame ends, and cuts what has not closed within a second. */
  close(): void {
    if (this.#closing) return
    this.#closing = true
    this.#wait(closeGraceMs)
    this.#sayGoodbye(this.#client)
    this.#sayGoodbye(this.#service)
  }

  /** Both events may be over by now: a client may leave while its 101 is on its way. */
  #join(from: Side, to: Side): void {
    const { socket } = from
    const onEnd = () => this.#endOf(to)
    const onClose = () => this.#closeOf(from, to)
    socket.on('error', (error) => this.#fail(error, from))
    if (socket.closed) {
      // Not before both sides are joined.
      process.nextTick(onClose)
      return
    }
    const resume = () => {
      clearTimeout(to.stall)
      this.#alive()
      socket.resume()
    }
    socket.on('data', (chunk: Buffer) => {
      if (!this.#pass(chunk, to)) {
        socket.pause()
        to.socket.once('drain', resume)
        this.#boundStall(to)
      }
      // It has answered our close frame: the one who closes a WebSocket then ends the connection.
      if (from.closeSent && to.frames.closed) from.socket.end()
    })
    if (socket.readableEnded) process.nextTick(onEnd)
    else socket.once('end', onEnd)
    socket.once('close', onClose)
    socket.resume()
  }

  #endOf(to: Side): void {
    to.socket.end()
    if (!this.#closing) this.#wait(this.#idleMs === 0 ? halfClosedMs : Math.min(this.#idleMs, halfClosedMs))
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

  /** False once `to` cannot take more for now. */
  #pass(chunk: Buffer, to: Side): boolean {
    const { socket, frames } = to
    const ended = to.closeSent || socket.writableEnded || socket.destroyed
    const boundary = frames.read(chunk)
    // Bytes that go nowhere are no sign of life: the pings of a service must not keep it open for a client that has
    // left.
    if (ended) return true
    this.#alive()
    const passed = this.#closing && !frames.closed && boundary >= 0 ? chunk.subarray(0, boundary) : chunk
    to.bytes += passed.length
    const more = socket.write(passed)
    if (this.#closing && boundary >= 0) this.#sayGoodbye(to, true)
    return more
  }

  #sayGoodbye(to: Side, atBoundary = to.frames.atBoundary): void {
    const { socket, frames } = to
    if (!atBoundary || to.closeSent || frames.closed || socket.writableEnded || socket.destroyed) return
    to.closeSent = true
    to.bytes += to.closeFrame.length
    socket.write(to.closeFrame)
  }

  /** Starts the idle time anew: a byte has moved. */
  #alive(): void {
    // After the service has ended, what the client sends is not read: it gives the client no more time.
    if (!this.#closing && !this.#service.socket.readableEnded) this.#timer?.refresh()
  }

  /** Destroys a tunnel of which one side reads nothing for the idle time, though it goes on sending. */
  #boundStall(to: Side): void {
    if (this.#idleMs === 0) return
    const taken = bytesTaken(to.socket)
    to.stall = setTimeout(() => {
      if (bytesTaken(to.socket) === taken) this.#destroy()
      else this.#boundStall(to)
    }, this.#idleMs)
  }

  #wait(ms: number): void {
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
