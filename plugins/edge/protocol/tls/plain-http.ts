import type { Server, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { refusalBody, reportRefusal } from '../refusals.ts'
import { addressOf } from './client-address.ts'

/** OpenSSL's error codes for a first record that starts with an HTTP method or with CONNECT. */
const codes = new Set(['ERR_SSL_HTTP_REQUEST', 'ERR_SSL_HTTPS_PROXY_REQUEST'])

export const isPlainHttp = (code: string | undefined): boolean => code !== undefined && codes.has(code)

/**
 * Responds without TLS to a client that speaks HTTP to a TLS port, as nginx and Go do. The rest of the request is not read.
 * TLSSocket closes the connection after this event, so the client gets only the bytes that the kernel accepts now.
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
