import type { LocalErrorCode, SeamError, SeamErrorCode, SeamReason } from '../../seam.ts'

/**
 * The mesh's error codes. Callers tell errors apart by `code`, never by class. No code of Node, OpenSSL or undici gets
 * out: an error of a connection is translated where it occurs (http/connection-errors.ts), and the original is its
 * `cause`.
 */
const meshErrors = {
  JW_NO_SERVICE: 'no such service',
  JW_NO_INSTANCE: 'no instance of the service is available',
  JW_CALL_TIMEOUT: 'the call took longer than its timeout',
  JW_RESPONSE_TIMEOUT: 'the response took longer than its timeout',
  JW_ATTEMPT_TIMEOUT: 'the instance did not respond within the attempt timeout',
  JW_CALLER_SILENT: 'the caller paused within the request body for longer than the idle timeout',
  JW_CIRCUIT_OPEN: 'the circuit is open',
  JW_OVERLOADED: 'concurrency limit reached',
  JW_UPSTREAM_LIMITED: 'rate limit toward the service reached',
  JW_INTENTION_DENIED: 'no intention allows the gateway to call the service',
  JW_MESH_CLOSED: 'the mesh is closed',
  JW_PLUGIN_FAILED: 'an interceptor of a plugin failed'
} as const satisfies Partial<Record<SeamErrorCode, string>>

export type MeshErrorCode = keyof typeof meshErrors

export class MeshError extends Error implements SeamError {
  override readonly name = 'MeshError'
  readonly code: MeshErrorCode
  readonly service: string
  /** Time after which another try may succeed, if that is known. */
  readonly retryAfterMs: number | undefined
  /** What the code leaves open, for the log. */
  readonly reason: SeamReason | undefined

  constructor(code: MeshErrorCode, service: string, retryAfterMs?: number, reason?: SeamReason) {
    super(`${service}: ${meshErrors[code]}`)
    this.code = code
    this.service = service
    this.retryAfterMs = retryAfterMs
    this.reason = reason
  }
}

/** Reason that aborts an attempt when another one of the same call has responded. It reaches no caller and blames no instance. */
export class AttemptUnneeded extends Error {
  override readonly name = 'AttemptUnneeded'

  constructor() {
    super('another attempt has responded')
  }
}

/** Failures of an instance or of the network on the way to it. */
const upstreamErrors: Readonly<Record<Exclude<SeamErrorCode, MeshErrorCode | LocalErrorCode>, string>> = {
  JW_UPSTREAM_REFUSED: 'the instance refused the connection',
  JW_UPSTREAM_UNREACHABLE: 'the instance cannot be reached',
  JW_UPSTREAM_CONNECT_TIMEOUT: 'the connection was not established within the connect timeout',
  JW_UPSTREAM_DNS: "the instance's host name cannot be resolved",
  JW_UPSTREAM_TLS: 'the TLS handshake failed',
  JW_UPSTREAM_UNTRUSTED: "the instance's certificate cannot be verified",
  JW_UPSTREAM_RESET: 'the connection was closed before the response was complete',
  JW_UPSTREAM_MALFORMED: 'the response is malformed',
  JW_UPSTREAM_HEADERS_TOO_LARGE: 'the header or trailer section of the response is too large',
  JW_BAD_UPGRADE: 'the instance switched to a protocol that was not requested, or does not name the protocol',
  JW_UPSTREAM_TIMEOUT: 'the response body paused for longer than the idle timeout',
  JW_INSTANCE_REMOVED: 'the instance was removed from the service'
}

/** Resources that this process or its host has run out of. They say nothing of the instance. */
const localErrors: Readonly<Record<LocalErrorCode, string>> = {
  JW_OUT_OF_DESCRIPTORS: 'the gateway is out of file descriptors',
  JW_OUT_OF_MEMORY: 'the gateway is out of memory',
  JW_OUT_OF_PORTS: 'the gateway is out of local ports',
  JW_OUT_OF_CPU: 'the event loop of the gateway was blocked'
}

export type ConnectionErrorCode = Exclude<SeamErrorCode, MeshErrorCode>

/**
 * Failure of a connection to an instance, of establishing one, or of waiting for what comes on it. `cause` is the error
 * of Node, OpenSSL or undici.
 */
export class ConnectionError extends Error {
  override readonly name = 'ConnectionError'
  readonly code: ConnectionErrorCode

  constructor(code: ConnectionErrorCode, cause: Error) {
    super(isLocal(code) ? localErrors[code] : upstreamErrors[code], { cause })
    this.code = code
  }
}

/** A fault of a user's interceptor, which ends its own call. */
export class InterceptorFailed extends MeshError {
  override readonly cause: Error
  /** For the log. */
  readonly fields: Readonly<Record<string, string>>

  constructor(of: { name: string; plugin: string | null; per: string; service: string }, where: string, cause: Error) {
    super('JW_PLUGIN_FAILED', of.service)
    this.cause = cause
    this.fields = {
      ...(of.plugin !== null && { plugin: of.plugin }),
      interceptor: of.name,
      per: of.per,
      service: of.service,
      where
    }
    this.message = `${of.service}: interceptor ${of.name} failed in ${where}: ${cause.message}`
  }
}

export function isLocal(code: string): code is LocalErrorCode {
  return Object.hasOwn(localErrors, code)
}

const timeouts = new Set(['JW_ATTEMPT_TIMEOUT', 'JW_CALL_TIMEOUT', 'JW_UPSTREAM_TIMEOUT'])

/** `local`: this process lacks a resource. No instance is to blame, and another attempt would lack it too. */
export type Failure = 'connect-failure' | 'refused-stream' | 'reset' | 'timeout' | 'local' | 'other'

/**
 * The kind of failure of an attempt, in Envoy's terms. A code does not tell whether the request was already on the wire
 * (a host can become unreachable in the middle of a response), so the caller passes `sent`: before that, sending the
 * request elsewhere is safe whatever its method. Errors of callers, handlers and interceptors are `other`, whatever
 * their codes: an interceptor that is refused by its own database does not make the instance fail.
 */
export function classify(error: Error & { code?: string }, sent: boolean): Failure {
  const { code = '' } = error
  if (timeouts.has(code)) return 'timeout'
  if (isLocal(code)) return 'local'
  if (Object.hasOwn(upstreamErrors, code)) return sent ? 'reset' : 'connect-failure'
  if (code === 'ERR_HTTP2_STREAM_ERROR' && error.message.includes('REFUSED_STREAM')) return 'refused-stream'
  return 'other'
}

/** Returns whether the error's code is one of the mesh or of the network. */
export function isNamed(error: Error & { code?: string }): boolean {
  const { code = '' } = error
  return Object.hasOwn(meshErrors, code) || classify(error, false) !== 'other'
}
