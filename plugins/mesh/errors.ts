/**
 * The mesh's own failures. Those of the network keep the codes that Node and undici gave them
 * (`ECONNREFUSED`, `UND_ERR_SOCKET` …); callers tell errors apart by `code`, never by class.
 */
const meshErrors = {
  JW_NO_SERVICE: 'no such service',
  JW_NO_INSTANCE: 'no instance of the service is available',
  JW_CALL_TIMEOUT: 'the call took longer than its timeout',
  JW_ATTEMPT_TIMEOUT: 'the instance did not answer within the attempt timeout',
  JW_CALLER_SILENT: 'the caller sent nothing of the body for longer than the idle timeout',
  JW_CIRCUIT_OPEN: 'the circuit is open',
  JW_OVERLOADED: 'as much as may be is in flight already',
  JW_UPSTREAM_LIMITED: 'the rate limit toward the service is reached',
  JW_INTENTION_DENIED: 'no intention allows the gateway to call the service',
  JW_IDENTITY_MISMATCH: 'the instance is not who it should be',
  JW_MESH_CLOSED: 'the mesh is closed'
} as const

export type MeshErrorCode = keyof typeof meshErrors

export class MeshError extends Error {
  override readonly name = 'MeshError'
  readonly code: MeshErrorCode
  readonly service: string
  /** When another try may fare better, as far as that is known. */
  readonly retryAfterMs: number | undefined

  constructor(code: MeshErrorCode, service: string, retryAfterMs?: number) {
    super(`${service}: ${meshErrors[code]}`)
    this.code = code
    this.service = service
    this.retryAfterMs = retryAfterMs
  }
}

/** Why an attempt is cut when another one beside it has answered: no caller hears it, and no instance is to blame. */
export class HedgeLost extends Error {
  override readonly name = 'HedgeLost'
  readonly code = 'HEDGE_LOST'

  constructor() {
    super('another attempt has answered')
  }
}

/**
 * Failures of the network that carry no `syscall`: undici's own, those that Node gathers in an AggregateError, and our
 * own of a peer that is not who it should be, to whom nothing was sent.
 */
const network = new Set([
  'JW_IDENTITY_MISMATCH',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_SOCKET',
  'UND_ERR_CLOSED',
  'UND_ERR_DESTROYED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'EPIPE',
  'ETIMEDOUT',
  'ERR_HTTP2_GOAWAY_SESSION'
])
const timeouts = new Set(['JW_ATTEMPT_TIMEOUT', 'JW_CALL_TIMEOUT', 'UND_ERR_BODY_TIMEOUT', 'UND_ERR_HEADERS_TIMEOUT'])

export type Failure = 'connect-failure' | 'refused-stream' | 'reset' | 'timeout' | 'other'

/**
 * What kind of failure an attempt met, in Envoy's words. No code tells whether a request was already under way
 * (a host becomes unreachable also in the middle of an answer), so the caller says: until `sent`, sending it
 * elsewhere is safe whatever the method.
 */
export function classify(error: Error & { code?: string; syscall?: string }, sent: boolean): Failure {
  const code = error.code ?? ''
  if (timeouts.has(code)) return 'timeout'
  if (code === 'ERR_HTTP2_STREAM_ERROR' && error.message.includes('REFUSED_STREAM')) return 'refused-stream'
  const tls = /^ERR_(TLS|SSL)_|^UNABLE_TO_|CERT|SELF_SIGNED|ISSUER/.test(code)
  if (!tls && error.syscall === undefined && !network.has(code)) return 'other'
  return sent ? 'reset' : 'connect-failure'
}
