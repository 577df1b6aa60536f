import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { isWebSocket } from './headers.ts'
import { hasBody } from './request-body.ts'

/** Returns whether a request is a valid handshake (RFC 6455, 4.2.1). Other `Upgrade` headers may be ignored (RFC 9110, 7.8). */
export function isHandshake(request: IncomingMessage): boolean {
  const { headers, httpVersion, method } = request
  if (!isWebSocket(headers.upgrade) || method !== 'GET' || httpVersion !== '1.1') return false
  return headers.host !== undefined && headers['sec-websocket-key'] !== undefined && !hasBody(request)
}

/** Returns whether an earlier request on the connection still waits for the end of its response. */
export function isResponding(request: IncomingMessage): boolean {
  const { _httpMessage: response } = request.socket as { _httpMessage?: ServerResponse | null }
  return Boolean(response)
}

const handshakes = new WeakMap<IncomingMessage, Handshake>()

/** Returns the connection of a request that is a valid handshake and has left the HTTP parser. */
export function handshakeOf(request: IncomingMessage): Handshake | undefined {
  return handshakes.get(request)
}

/** Bytes that are read from a client before its 101. */
const earlyBytes = 64 * 1024

/**
 * A connection that has left the HTTP parser and waits for its 101. From `begin` on it is read, to detect a client that
 * disconnects. `release` stops reading and pushes early bytes back to the socket.
 */
export class Handshake {
  readonly socket: Duplex
  readonly #head: Buffer
  readonly #early: Buffer[] = []
  #size = 0

  constructor(request: IncomingMessage, socket: Duplex, head: Buffer) {
    this.socket = socket
    this.#head = head
    if (isHandshake(request)) handshakes.set(request, this)
  }

  begin(): void {
    const { socket } = this
    socket.on('error', () => {})
    socket.on('data', this.#buffer)
    // `end` is emitted once: the client may have ended already.
    if (socket.readableEnded) this.#onEnd()
    else socket.once('end', this.#onEnd)
    if (this.#head.length > 0) this.#buffer(this.#head)
  }

  readonly #buffer = (chunk: Buffer): void => {
    this.#early.push(chunk)
    this.#size += chunk.length
    if (this.#size >= earlyBytes) this.socket.pause()
  }

  readonly #onEnd = (): void => {
    this.socket.destroy()
  }

  release(): Duplex {
    const { socket } = this
    socket.off('data', this.#buffer).off('end', this.#onEnd).pause()
    if (this.#size > 0) socket.unshift(Buffer.concat(this.#early))
    return socket
  }
}
