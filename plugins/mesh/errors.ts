/**
 * The mesh's own failures. Those of the network keep the codes that Node and undici gave them
 * (`ECONNREFUSED`, `UND_ERR_SOCKET` …); callers tell errors apart by `code`, never by class.
 */
export const meshErrors = {
  JW_NO_SERVICE: 'no such service',
  JW_NO_INSTANCE: 'no instance of the service is available',
  JW_CALL_TIMEOUT: 'the call took longer than its timeout',
  JW_ATTEMPT_TIMEOUT: 'the instance did not answer within the attempt timeout',
  JW_MESH_CLOSED: 'the mesh is closed'
} as const

export type MeshErrorCode = keyof typeof meshErrors

export class MeshError extends Error {
  override readonly name = 'MeshError'
  readonly code: MeshErrorCode
  readonly service: string

  constructor(code: MeshErrorCode, service: string) {
    super(`${service}: ${meshErrors[code]}`)
    this.code = code
    this.service = service
  }
}

/** Codes of failures before a byte of the request left: sending it elsewhere is safe whatever the method. */
const notSent = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'EHOSTDOWN',
  'ENETUNREACH',
  'EADDRNOTAVAIL',
  'ENOTFOUND',
  'EAI_AGAIN',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED'
])
/** Codes of a connection lost while the request was under way: it may have been processed. */
const lost = new Set(['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET', 'ERR_HTTP2_GOAWAY_SESSION'])

export type Failure = 'connect-failure' | 'refused-stream' | 'reset' | 'timeout' | 'other'

/** What kind of failure an attempt met, in Envoy's words. */
export function classify(error: Error & { code?: string; syscall?: string }): Failure {
  const code = error.code ?? ''
  if (code === 'JW_ATTEMPT_TIMEOUT' || code === 'JW_CALL_TIMEOUT') return 'timeout'
  if (notSent.has(code) || error.syscall === 'connect') return 'connect-failure'
  // Raised by the TLS handshake, before any request is written.
  if (code.startsWith('ERR_TLS_') || code.startsWith('ERR_SSL_') || /CERT|SELF_SIGNED|ISSUER/.test(code)) {
    return 'connect-failure'
  }
  if (lost.has(code)) return 'reset'
  if (code === 'ERR_HTTP2_STREAM_ERROR' && error.message.includes('REFUSED_STREAM')) return 'refused-stream'
  return 'other'
}
