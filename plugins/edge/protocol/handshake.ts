import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { isWebSocket } from './headers.ts'
import { hasBody } from './request-body.ts'

/** A proper handshake (RFC 6455, 4.2.1). Every other `Upgrade` may be ignored: RFC 9110, 7.8. */
export function isHandshake(request: IncomingMessage): boolean {
  const { headers, httpVersion, method } = request
  if (!isWebSocket(headers.upgrade) || method !== 'GET' || httpVersion !== '1.1') return false
  return headers.host !== undefined && headers['sec-websocket-key'] !== undefined && !hasBody(request)
}

/** Returns whether the response to an earlier request is in progress: the connection leaves HTTP after its end only. */
export function isAnswering(request: IncomingMessage): boolean {
  const { _httpMessage: response } = request.socket as { _httpMessage?: ServerResponse | null }
  return Boolean(response)
}

const handshakes = new WeakMap<IncomingMessage, Handshake>()

/** Returns the connection of a request that is a proper handshake and has left the HTTP parser. */
export function handshakeOf(request: IncomingMessage): Handshake | undefined {
  return handshakes.get(request)
}

/** Bytes that a client may send before it has got its 101. */
const earlyBytes = 64 * 1024

/**
 * A connection that left the HTTP parser and waits for its 101. Once it has begun it is read, since nobody else would
 * notice a client that leaves; `release` stops that and gives bytes that came early back to the socket.
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
    socket.on('data', this.#keep)
    // Emitted once only: the client may have ended already.
    if (socket.readableEnded) this.#gone()
    else socket.once('end', this.#gone)
    if (this.#head.length > 0) this.#keep(this.#head)
  }

  readonly #keep = (chunk: Buffer): void => {
    this.#early.push(chunk)
    this.#size += chunk.length
    if (this.#size >= earlyBytes) this.socket.pause()
  }

  readonly #gone = (): void => {
    this.socket.destroy()
  }

  release(): Duplex {
    const { socket } = this
    socket.off('data', this.#keep).off('end', this.#gone).pause()
    if (this.#size > 0) socket.unshift(Buffer.concat(this.#early))
    return socket
  }
}
