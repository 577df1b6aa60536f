/**
 * Clients that read their responses slowly are waited for; those that read next to nothing are disconnected, since each
 * holds a connection to a service as long as it likes.
 */
import type { Server, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { Allowance } from './allowance.ts'
import { bytesTaken, isBlocked } from './bytes-taken.ts'
import { Sweep } from './sweep.ts'

/** A stream does not say how much of a write its client has read, so each of these portions has the idle time. */
const portionBytes = 65_536

interface Limits {
  /** Longest time that a client may read nothing, in milliseconds. */
  readonly sendIdle: number
  /** Least rate at which it reads, in bytes per second. */
  readonly sendRate: number | false
}

/**
 * Bounds the time that clients take to read what is written to them, whatever else comes on their connections. Returns
 * how a stream of HTTP/2 is bounded: its window may be closed while the connection moves.
 */
export function boundReaders(
  server: Server,
  limits: () => Limits
): (stream: ServerHttp2Stream, socket: Socket) => void {
  const { sendIdle } = limits()
  const connections = new Sweep<ConnectionReader>(sendIdle, (reader, elapsedMs) => {
    if (reader.look(elapsedMs) <= 0) reader.disconnect()
  })
  const streams = new Sweep<StreamReader>(sendIdle, (reader, elapsedMs) => {
    if (reader.look(elapsedMs) <= 0) reader.reset()
  })
  server.on('setSecureContext' in server ? 'secureConnection' : 'connection', (socket: Socket) => {
    const reader = new ConnectionReader(socket, limits())
    connections.add(reader)
    socket.once('close', () => connections.delete(reader))
  })
  return (stream, socket) => {
    const reader = new StreamReader(stream, socket, limits())
    streams.add(reader)
    stream.once('close', () => streams.delete(reader))
  }
}

/** Time passes while the kernel takes nothing more for the client, and comes back while it does. */
class ConnectionReader {
  readonly #socket: Socket
  readonly #allowance: Allowance
  #blocked = false
  #taken = 0

  constructor(socket: Socket, { sendIdle, sendRate }: Limits) {
    this.#socket = socket
    this.#allowance = new Allowance(sendIdle, sendRate)
  }

  look(elapsedMs: number): number {
    const blocked = isBlocked(this.#socket)
    // Most are idle, and cost no more than this.
    if (!blocked && !this.#blocked) return this.#allowance.spend(-elapsedMs, 0)
    const taken = bytesTaken(this.#socket)
    const left = this.#allowance.spend(this.#blocked ? elapsedMs : 0, this.#blocked ? taken - this.#taken : 0)
    this.#blocked = blocked
    this.#taken = taken
    return left
  }

  /** Resets the connection if that is possible: HTTP/1.0 takes a closed connection for the end of the body. */
  disconnect(): void {
    const socket = this.#socket
    // Neither TLS nor a Unix socket has one.
    if (socket instanceof TLSSocket || socket.remoteAddress === undefined) socket.destroy()
    else socket.resetAndDestroy()
  }
}

/** Time passes while the client's window is closed. While its connection is slow, that one's time passes. */
class StreamReader {
  readonly #stream: ServerHttp2Stream
  readonly #socket: Socket
  readonly #idleMs: number
  readonly #allowance: Allowance
  #length = 0
  #listens = false
  /** Once it is there, time for a reset to leave. */
  #resetLeftMs: number | null = null

  constructor(stream: ServerHttp2Stream, socket: Socket, { sendIdle, sendRate }: Limits) {
    this.#stream = stream
    this.#socket = socket
    this.#idleMs = sendIdle
    this.#allowance = new Allowance(sendIdle, sendRate)
  }

  look(elapsedMs: number): number {
    if (this.#resetLeftMs !== null) {
      this.#resetLeftMs -= elapsedMs
      return this.#resetLeftMs
    }
    const { writableLength } = this.#stream
    const before = this.#length
    if (writableLength > 0 && !this.#listens) this.#listen()
    this.#length = writableLength
    const waits = before > 0 && writableLength > 0 && !isBlocked(this.#socket)
    const left = this.#allowance.spend(waits ? elapsedMs : -elapsedMs, Math.max(0, before - writableLength))
    return left + this.#idleMs * (Math.max(1, Math.ceil(writableLength / portionBytes)) - 1)
  }

  /** Between two looks, what was written may be taken and more be written. */
  #listen(): void {
    this.#listens = true
    this.#stream.on('drain', () => {
      this.#allowance.spend(0, this.#length)
      this.#length = 0
    })
  }

  reset(): void {
    if (this.#resetLeftMs === null) {
      this.#resetLeftMs = this.#idleMs
      this.#stream.close(constants.NGHTTP2_CANCEL)
    } else {
      this.#stream.destroy()
    }
  }
}

/**
 * Calls `flushed` once the written bytes have left the process, or cannot leave it any more. An HTTP/2 stream may have
 * ended or closed already, and then never emits `drain`.
 */
export function whenFlushed(response: ServerResponse, flushed: () => void): void {
  const { socket } = response
  if ('stream' in response) {
    const stream = response.stream as ServerHttp2Stream
    if (stream.destroyed || !stream.writableNeedDrain) {
      setImmediate(flushed)
      return
    }
    const done = () => {
      stream.off('drain', done).off('close', done)
      flushed()
    }
    stream.once('drain', done).once('close', done)
  } else if (socket === null) response.once('drain', flushed)
  // Queued after the chunk: called once the chunk has left, or cannot leave any more.
  else socket.write('', 'latin1', flushed)
}
