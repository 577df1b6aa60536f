import type { ServerResponse } from 'node:http'
import type { Server, Socket } from 'node:net'
import { listenerOfSocket } from '../../listener-of.ts'
import { STATUS_CODES } from '../../node-http.ts'
import type { Refusal } from './refusals.ts'
import { refusalBody, tellRefused } from './refusals.ts'

/** Responses to errors of Node's parser and its timers; any other request is malformed. */
const parserErrors: Readonly<Record<string, readonly [status: number, reason: Refusal['reason']]>> = {
  HPE_HEADER_OVERFLOW: [431, 'head-too-large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'too-slow'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'malformed']
}

/** Connections whose bytes could not be read: whatever comes after is not even looked at. */
const unreadable = new WeakSet<Socket>()
/** Time that such a client has for reading its response. */
const lingerMs = 1000

/**
 * Answers what Node's parser refused, and closes: after bytes that cannot be read for sure, nothing on the
 * connection can be (RFC 9112, section 11.2).
 */
export function refuseUnparsable(server: Server, error: Error & { code?: string }, socket: Socket): void {
  // A client that closes its side within a later message is gone, as one that closes it between two.
  const isGone = error.code === 'HPE_INVALID_EOF_STATE' && answering(socket)?.req.complete === true
  if (error.code === 'ECONNRESET' || isGone) socket.destroy()
  if (unreadable.has(socket) || socket.destroyed) return
  unreadable.add(socket)
  const { code = '' } = error
  if (isInHandshake(socket)) {
    // A response would wait for the handshake. If the client completes it late, Node begins an HTTP/2 session on the
    // connection, whose first write ends the process while another one waits.
    tellRefused(server, { reason: 'malformed', ip: socket.remoteAddress, code, listener: listenerOfSocket(socket) })
    socket.destroy()
    return
  }
  const [status, reason] = (Object.hasOwn(parserErrors, code) ? parserErrors[code] : undefined) ?? [400, 'malformed']
  // Within the body of a request that has its route, that request tells.
  if (answering(socket)?.req.complete !== false) {
    const from = { ip: socket.remoteAddress, listener: listenerOfSocket(socket) }
    tellRefused(server, { reason, status, code: error.code, ...from })
  }
  answerUnparsable(status, socket)
}

/** Returns whether a TLS connection has no keys yet: its client is slow, or speaks no TLS that we accept. */
function isInHandshake(socket: Socket): boolean {
  return (socket as { secureConnecting?: boolean }).secureConnecting === true
}

/** The response that is under way on a connection. */
function answering(socket: Socket): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}

function answerUnparsable(status: number, socket: Socket): void {
  if (!socket.writable) {
    socket.destroySoon()
    return
  }
  const response = answering(socket)
  if (response?.req.complete) {
    // An earlier request's: it was whole, so it is answered first, and this would pass for that answer.
    response.once('close', () => answerUnparsable(status, socket))
    return
  }
  // In the middle of a response, another status line would pass for a part of its body.
  if (response?.headersSent) {
    // Its response may be flushed at the end of this event-loop iteration only.
    setImmediate(() => socket.destroy())
    return
  }
  const text = refusalBody(status, status === 400 ? 'The request is malformed' : undefined)
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`
  )
  // The rest of its request will never be known: the service must not wait for it, nor answer.
  response?.emit('close')
  const linger = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(linger))
}
