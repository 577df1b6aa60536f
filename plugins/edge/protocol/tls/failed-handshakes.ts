import type { Server } from 'node:net'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import { hostKey } from '../../../../config/host-name.ts'
import type { Refusal } from '../refusals.ts'
import { reportRefusal } from '../refusals.ts'
import { addressOf } from './client-address.ts'
import { isPlainHttp, refusePlainHttp } from './plain-http.ts'

/** Marks a socket whose client sent a server name that no certificate has. */
export const UNKNOWN_NAME = Symbol('unknown server name')

/** OpenSSL's error codes, of TLS 1.2 and 1.3, if the server has no certificate for the client. */
const withoutCertificate = new Set(['ERR_SSL_NO_SHARED_CIPHER', 'ERR_SSL_NO_SUITABLE_SIGNATURE_ALGORITHM'])

/** Reports a failed handshake, unless the client disconnected, as port scans and health checks of load balancers do. */
export function reportFailedHandshake(
  server: Server,
  { code }: NodeJS.ErrnoException,
  socket: TLSSocket,
  strict: boolean
): void {
  if (isPlainHttp(code)) {
    refusePlainHttp(server, socket)
    return
  }
  const reason = reasonOf(code, socket, strict)
  if (reason === null) return
  const error = reason === 'client-certificate' ? (verificationError(socket) ?? code) : code
  reportRefusal(server, {
    reason,
    ip: addressOf(socket),
    code: reason === 'server-name' ? undefined : error,
    serverName: serverNameOf(socket)
  })
}

/** Returns the server name that the client sent, sanitized for the log; undefined if it sent none. */
function serverNameOf(socket: TLSSocket): string | undefined {
  const { servername } = socket as { servername?: string | false | null }
  return servername ? hostKey(servername).replace(/[^\w.:[\]-]/g, '?') : undefined
}

function reasonOf(code: string | undefined, socket: TLSSocket, strict: boolean): Refusal['reason'] | null {
  // For a missing certificate Node has no error code of its own.
  if (code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE' || verificationError(socket) !== null) {
    return 'client-certificate'
  }
  if (!code?.startsWith('ERR_SSL_')) return null
  if (strict && withoutCertificate.has(code)) {
    if (serverNameOf(socket) === undefined || Reflect.get(socket, UNKNOWN_NAME) === true) return 'server-name'
  }
  return 'tls-handshake'
}

/** Returns the reason why the client's certificate was refused; null if it was not. */
export function verificationError(socket: Duplex): string | null {
  const authorizationError: unknown = Reflect.get(socket, 'authorizationError')
  return typeof authorizationError === 'string' ? authorizationError : null
}
