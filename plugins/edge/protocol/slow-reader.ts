/**
 * Limits for clients that read their responses slowly. Clients that read more slowly than `sendRate`, or nothing for
 * `sendIdle`, are disconnected, because each holds a connection to a service.
 */
import type { Server, ServerResponse } from 'node:http'
import type { ServerHttp2Stream } from 'node:http2'
import { constants } from 'node:http2'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { Allowance } from './allowance.ts'
import { bytesTaken, isBlocked } from './bytes-taken.ts'
import { Sweep } from './sweep.ts'

/** Bytes for which a stream gets one idle timeout: a stream does not report how much of a write its client has read. */
const portionBytes = 65_536

interface Limits {
  /** Longest time in which a client may read nothing, in milliseconds. */
  readonly sendIdle: number
  /** Lowest rate at which a client may read, in bytes per second. */
  readonly sendRate: number | false
}

/**
 * Limits the time that clients take to read their responses, whatever they send meanwhile. Returns the function that limits
 * an HTTP/2 stream, since the window of a stream may be closed while the connection makes progress.
 */
export function boundReaders(
  server: Server,
  limits: () => Limits
): (stream: ServerHttp2Stream, socket: Socket) => void {
  const { sendIdle } = limits()
  const connections = new Sweep<ConnectionReader>(sendIdle, (reader, elapsedMs) => {
    if (reader.check(elapsedMs) <= 0) reader.disconnect()
  })
  const streams = new Sweep<StreamReader>(sendIdle, (reader, elapsedMs) => {
    if (reader.check(elapsedMs) <= 0) reader.reset()
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

/** Reader of a connection. Its allowance decreases while the kernel accepts no bytes for the client, and recovers otherwise. */
class ConnectionReader {
  readonly #socket: Socket
  readonly #allowance: Allowance
  #blocked = false
  #taken = 0

  constructor(socket: Socket, { sendIdle, sendRate }: Limits) {
    this.#socket = socket
    this.#allowance = new Allowance(sendIdle, sendRate)
  }

  check(elapsedMs: number): number {
    const blocked = isBlocked(this.#socket)
    // The common case: an idle connection.
    if (!blocked && !this.#blocked) return this.#allowance.spend(-elapsedMs, 0)
    const taken = bytesTaken(this.#socket)
    const left = this.#allowance.spend(this.#blocked ? elapsedMs : 0, this.#blocked ? taken - this.#taken : 0)
    this.#blocked = blocked
    this.#taken = taken
    return left
  }

  /** Resets the connection if possible: in HTTP/1.0, a closed connection ends the body. */
  disconnect(): void {
    const socket = this.#socket
    // TLS connections and Unix sockets cannot be reset.
    if (socket instanceof TLSSocket || socket.remoteAddress === undefined) socket.destroy()
    else socket.resetAndDestroy()
  }
}

/** Reader of an HTTP/2 stream. Its allowance decreases while its window is closed, unless the connection is blocked. */
class StreamReader {
  readonly #stream: ServerHttp2Stream
  readonly #socket: Socket
  readonly #idleMs: number
  readonly #allowance: Allowance
  #length = 0
  #listens = false
  /** Time left for a reset to be sent; null before the reset. */
  #resetLeftMs: number | null = null

  constructor(stream: ServerHttp2Stream, socket: Socket, { sendIdle, sendRate }: Limits) {
    this.#stream = stream
    this.#socket = socket
    this.#idleMs = sendIdle
    this.#allowance = new Allowance(sendIdle, sendRate)
  }

  check(elapsedMs: number): number {
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

  /** Records drained bytes: between two checks, a write may drain and another one follow. */
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
