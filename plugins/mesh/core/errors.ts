import type { LocalErrorCode, SeamError, SeamErrorCode, SeamReason } from '../../seam.ts'

/**
 * Error codes of the mesh. Callers tell errors apart by `code`, never by class. They never see a code of Node, OpenSSL
 * or undici: a connection's error is translated where it occurs (http/connection-errors.ts), and the original is its
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
  JW_CREDENTIALS_UNAVAILABLE: 'the gateway could get no credentials for the service',
  JW_MESH_CLOSED: 'the mesh is closed',
  JW_PLUGIN_FAILED: 'an interceptor of a plugin failed'
} as const satisfies Partial<Record<SeamErrorCode, string>>

export type MeshErrorCode = keyof typeof meshErrors

/** Details of `JW_NO_INSTANCE`. */
const details: Readonly<Partial<Record<SeamReason, string>>> = {
  instances_unknown: ': discovery has had no result yet; mesh.ready() waits for it',
  instances_none: ': discovery knows none',
  instances_unavailable: ': none of those known is healthy'
}

export class MeshError extends Error implements SeamError {
  override readonly name = 'MeshError'
  readonly code: MeshErrorCode
  readonly service: string
  /** Milliseconds after which a retry may succeed, if known. */
  readonly retryAfterMs: number | undefined
  /** More specific reason, for the log. */
  readonly reason: SeamReason | undefined

  constructor(code: MeshErrorCode, service: string, retryAfterMs?: number, reason?: SeamReason) {
    super(`${service}: ${meshErrors[code]}${(reason && details[reason]) ?? ''}`)
    this.code = code
    this.service = service
    this.retryAfterMs = retryAfterMs
    this.reason = reason
  }
}

/**
 * Aborts an attempt when another one of the same call has responded. No caller sees it, and no instance is at fault.
 */
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

/** Resources that this process or its host has run out of; no failure of the instance. */
const localErrors: Readonly<Record<LocalErrorCode, string>> = {
  JW_OUT_OF_DESCRIPTORS: 'the gateway is out of file descriptors',
  JW_OUT_OF_MEMORY: 'the gateway is out of memory',
  JW_OUT_OF_PORTS: 'the gateway is out of local ports',
  JW_OUT_OF_CPU: 'the event loop of the gateway was blocked'
}

export type ConnectionErrorCode = Exclude<SeamErrorCode, MeshErrorCode>

/**
 * Failure to establish a connection to an instance, of an established one, or of a response on it. `cause` is the error
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

/** A fault of a plugin's interceptor, which fails its own call. */
export class InterceptorFailed extends MeshError {
  override readonly cause: Error
  /** Fields for the log. */
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

/** Kind of failure. `local`: this process lacks a resource; no instance is at fault, and a retry would lack it too. */
export type Failure = 'connect-failure' | 'refused-stream' | 'reset' | 'timeout' | 'local' | 'other'

/**
 * Returns the kind of failure of an attempt, in Envoy's terms. A code does not show whether the request was already on
 * the wire (a host can become unreachable in the middle of a response), so the caller passes `sent`: an unsent request
 * may be sent elsewhere whatever its method. Errors of callers, handlers and interceptors are `other`, whatever their
 * codes: if an interceptor's own database refuses a connection, the instance has not failed.
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
