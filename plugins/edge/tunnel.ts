import type { Duplex } from 'node:stream'
import { closeFrame, FrameReader } from './websocket-frames.ts'

/** How long both ends have to answer a close frame; then they are cut. */
const closeGraceMs = 1000
/** Longest silence of a service whose client has said all, and time for a client to take what a service said last. */
const halfClosedMs = 10_000

interface Side {
  readonly socket: Duplex
  /** Frames on their way to this side. */
  readonly frames: FrameReader
  readonly closeFrame: Buffer
  /** Our own close frame was sent to it. */
  closeSent: boolean
  bytes: number
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

  #join(from: Side, to: Side): void {
    const { socket } = from
    const resume = () => {
      this.#alive()
      socket.resume()
    }
    socket.on('data', (chunk: Buffer) => {
      this.#alive()
      if (!this.#pass(chunk, to)) {
        socket.pause()
        to.socket.once('drain', resume)
      }
      // It has answered our close frame: the one who closes a WebSocket then ends the connection.
      if (from.closeSent && to.frames.closed) from.socket.end()
    })
    socket.once('end', () => {
      to.socket.end()
      if (!this.#closing) this.#wait(this.#idleMs === 0 ? halfClosedMs : Math.min(this.#idleMs, halfClosedMs))
    })
    socket.on('error', (error) => this.#fail(error, from))
    socket.once('close', () => {
      // What came before a clean end is still being written to the other side.
      if (!socket.readableEnded) to.socket.destroy()
      else to.socket.resume()
      if (--this.#open > 0) return
      clearTimeout(this.#timer)
      this.#onEnd(this.#error)
    })
    socket.resume()
  }

  /** False once `to` cannot take more for now. */
  #pass(chunk: Buffer, to: Side): boolean {
    const { socket, frames } = to
    const ended = to.closeSent || socket.writableEnded || socket.destroyed
    const boundary = frames.read(chunk)
    if (ended) return true
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

  /** A byte has moved. */
  #alive(): void {
    // Nobody hears a client whose service has ended: what it still sends gives it no more time.
    if (!this.#closing && !this.#service.socket.readableEnded) this.#timer?.refresh()
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
  return { socket, frames: new FrameReader(), closeFrame: frame, closeSent: false, bytes: 0 }
}
