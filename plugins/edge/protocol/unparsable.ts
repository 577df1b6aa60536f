import type { ServerResponse } from 'node:http'
import type { Server, Socket } from 'node:net'
import { listenerOfSocket } from '../../listener-of.ts'
import { STATUS_CODES } from '../../node-http.ts'
import type { Refusal } from './refusals.ts'
import { refusalBody, refusalFields, reportRefusal } from './refusals.ts'

/** Responses to errors of Node's parser and its timers; all other errors get 400. */
const parserErrors: Readonly<Record<string, readonly [status: number, reason: Refusal['reason']]>> = {
  HPE_HEADER_OVERFLOW: [431, 'head-too-large'],
  ERR_HTTP_REQUEST_TIMEOUT: [408, 'too-slow'],
  HPE_CHUNK_EXTENSIONS_OVERFLOW: [413, 'malformed']
}

/** Connections with a parser error, whose later bytes are ignored. */
const unreadable = new WeakSet<Socket>()
/** Time for the client to read its response. */
const lingerMs = 1000

/**
 * Responds to a request that Node's parser rejected, and closes the connection: after a parser error, later bytes cannot be
 * interpreted safely (RFC 9112, 11.2).
 */
export function refuseUnparsable(server: Server, error: Error & { code?: string }, socket: Socket): void {
  // A client that closes its side within a later request has disconnected, as between two requests.
  const isGone = error.code === 'HPE_INVALID_EOF_STATE' && currentResponse(socket)?.req.complete === true
  if (error.code === 'ECONNRESET' || isGone) socket.destroy()
  if (unreadable.has(socket) || socket.destroyed) return
  unreadable.add(socket)
  const { code = '' } = error
  if (isInHandshake(socket)) {
    // No response: it would wait for the handshake. If the client completes that late, Node starts an HTTP/2 session, whose
    // first write ends the process while another write is pending.
    reportRefusal(server, { reason: 'malformed', ip: socket.remoteAddress, code, listener: listenerOfSocket(socket) })
    socket.destroy()
    return
  }
  const [status, reason] = (Object.hasOwn(parserErrors, code) ? parserErrors[code] : undefined) ?? [400, 'malformed']
  // Not reported within the body of a routed request, which has an access line of its own.
  if (currentResponse(socket)?.req.complete !== false) {
    const from = { ip: socket.remoteAddress, listener: listenerOfSocket(socket) }
    reportRefusal(server, { reason, status, code: error.code, ...from })
  }
  respond(server, status, socket)
}

/** Returns whether the TLS handshake of a connection is not complete. */
function isInHandshake(socket: Socket): boolean {
  return (socket as { secureConnecting?: boolean }).secureConnecting === true
}

/** Returns the response that is in progress on a connection. */
function currentResponse(socket: Socket): ServerResponse | undefined {
  return (socket as { _httpMessage?: ServerResponse | null })._httpMessage ?? undefined
}

function respond(server: Server, status: number, socket: Socket): void {
  if (!socket.writable) {
    socket.destroySoon()
    return
  }
  const response = currentResponse(socket)
  if (response?.req.complete) {
    // The response to an earlier, complete request goes first: the client would take this response for that one.
    response.once('close', () => respond(server, status, socket))
    return
  }
  // In the middle of a response, the client would read another status line as part of its body.
  if (response?.headersSent) {
    // The response may be flushed only at the end of this event-loop iteration.
    setImmediate(() => socket.destroy())
    return
  }
  const text = refusalBody(status, status === 400 ? 'The request is malformed' : undefined)
  const fields = refusalFields(server, 'encrypted' in socket).map((field) => `${field.join(': ')}\r\n`)
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\ncontent-type: application/json; charset=utf-8\r\n` +
      `content-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n${fields.join('')}\r\n${text}`
  )
  // The rest of the request is lost, so the call to the service is cancelled.
  response?.emit('close')
  const linger = setTimeout(() => socket.destroy(), lingerMs)
  socket.once('close', () => clearTimeout(linger))
}
