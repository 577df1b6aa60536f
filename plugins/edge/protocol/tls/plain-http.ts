import type { Server, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { refusalBody, reportRefusal } from '../refusals.ts'
import { addressOf } from './client-address.ts'

/** OpenSSL's codes for a first record that begins with a method of HTTP, or with CONNECT. */
const codes = new Set(['ERR_SSL_HTTP_REQUEST', 'ERR_SSL_HTTPS_PROXY_REQUEST'])

export const isPlainHttp = (code: string | undefined): boolean => code !== undefined && codes.has(code)

/**
 * Responds in plain text to a client that speaks HTTP to a TLS port, as nginx and Go do. Of the request nothing is read
 * but what OpenSSL has seen. The handshake has failed, and TLSSocket closes the connection after this event: what the
 * kernel takes now is what the client gets.
 */
export function refusePlainHttp(server: Server, socket: TLSSocket): void {
  const { _parent: raw } = socket as { _parent?: Socket | null }
  reportRefusal(server, { reason: 'plain-http', status: 400, ip: addressOf(socket) })
  if (raw?.writable !== true) return
  const text = refusalBody(400, 'Client sent an HTTP request to an HTTPS server')
  raw.end(
    'HTTP/1.1 400 Bad Request\r\ncontent-type: application/json; charset=utf-8\r\n' +
      `content-length: ${Buffer.byteLength(text)}\r\nconnection: close\r\n\r\n${text}`
  )
}
