/**
 * Translates errors of Node, OpenSSL and undici into codes of the mesh, where they are known to concern a connection.
 */
import { closeSync, openSync } from 'node:fs'
import { devNull } from 'node:os'
import type { TLSSocket } from 'node:tls'
import type { LocalErrorCode } from '../../seam.ts'
import type { ConnectionErrorCode } from '../core/errors.ts'
import { ConnectionError } from '../core/errors.ts'

type Coded = Error & { code?: string; errors?: readonly Coded[] }

const local: Readonly<Record<string, LocalErrorCode>> = {
  EMFILE: 'JW_OUT_OF_DESCRIPTORS',
  ENFILE: 'JW_OUT_OF_DESCRIPTORS',
  ENOMEM: 'JW_OUT_OF_MEMORY',
  ENOBUFS: 'JW_OUT_OF_MEMORY',
  ERR_MEMORY_ALLOCATION_FAILED: 'JW_OUT_OF_MEMORY',
  EADDRNOTAVAIL: 'JW_OUT_OF_PORTS'
}

const connecting: Readonly<Record<string, ConnectionErrorCode>> = {
  ECONNREFUSED: 'JW_UPSTREAM_REFUSED',
  ECONNRESET: 'JW_UPSTREAM_RESET',
  EPIPE: 'JW_UPSTREAM_RESET',
  UND_ERR_SOCKET: 'JW_UPSTREAM_RESET',
  ETIMEDOUT: 'JW_UPSTREAM_CONNECT_TIMEOUT',
  UND_ERR_CONNECT_TIMEOUT: 'JW_UPSTREAM_CONNECT_TIMEOUT',
  EPROTO: 'JW_UPSTREAM_TLS',
  UND_ERR_CLOSED: 'JW_INSTANCE_REMOVED',
  UND_ERR_DESTROYED: 'JW_INSTANCE_REMOVED'
}

const connected: Readonly<Record<string, ConnectionErrorCode>> = {
  UND_ERR_HEADERS_OVERFLOW: 'JW_UPSTREAM_HEADERS_TOO_LARGE',
  UND_ERR_BODY_TIMEOUT: 'JW_UPSTREAM_TIMEOUT',
  HPE_UNEXPECTED_UPGRADE: 'JW_BAD_UPGRADE',
  EPROTO: 'JW_UPSTREAM_TLS',
  UND_ERR_CLOSED: 'JW_INSTANCE_REMOVED',
  UND_ERR_DESTROYED: 'JW_INSTANCE_REMOVED'
}

const isTls = (code: string) => code.startsWith('ERR_SSL_') || code.startsWith('ERR_TLS_')

/** Returns the code of a local shortage, if there is one among the errors of the addresses that were tried. */
function localCode({ code = '', errors }: Coded): LocalErrorCode | undefined {
  return local[code] ?? errors?.map((each) => local[each.code ?? '']).find((each) => each !== undefined)
}

/**
 * Returns whether a file descriptor is available. Without one, the resolver reports that the name does not exist.
 */
function hasDescriptor(): boolean {
  try {
    closeSync(openSync(devNull, 'r'))
    return true
  } catch {
    return false
  }
}

function dnsCode(): ConnectionErrorCode {
  return hasDescriptor() ? 'JW_UPSTREAM_DNS' : 'JW_OUT_OF_DESCRIPTORS'
}

/**
 * Translates the error of a connection that was not established. Node sets the result of a failed verification on the
 * socket, which is more reliable than a list of OpenSSL's codes. `wasBlocked`: the event loop was blocked for so long
 * that it caused a timeout.
 */
export function connectError(error: Coded, socket: object | undefined, wasBlocked = false): Error {
  if (error instanceof ConnectionError) return error
  const { code = '' } = error
  const untrusted = Boolean((socket as Partial<TLSSocket> | undefined)?.authorizationError)
  const isDns = code === 'ENOTFOUND' || code.startsWith('EAI_')
  const timedOut = connecting[code] === 'JW_UPSTREAM_CONNECT_TIMEOUT'
  if (timedOut && wasBlocked) return new ConnectionError('JW_OUT_OF_CPU', error)
  const own = untrusted
    ? 'JW_UPSTREAM_UNTRUSTED'
    : (localCode(error) ?? connecting[code] ?? (isTls(code) ? 'JW_UPSTREAM_TLS' : isDns ? dnsCode() : undefined))
  return new ConnectionError(own ?? 'JW_UPSTREAM_UNREACHABLE', error)
}

/**
 * Translates the error of an established connection. An error without a code is a bug of this program and stays as it
 * is.
 */
export function connectionError(error: Coded): Error {
  const { code } = error
  if (error instanceof ConnectionError || code === undefined) return error
  const own = local[code] ?? connected[code]
  if (own !== undefined) return new ConnectionError(own, error)
  if (code.startsWith('HPE_')) return new ConnectionError('JW_UPSTREAM_MALFORMED', error)
  return new ConnectionError(isTls(code) ? 'JW_UPSTREAM_TLS' : 'JW_UPSTREAM_RESET', error)
}
