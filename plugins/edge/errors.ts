/**
 * The gateway's one error table: the response to each code. Every failure on either side of the seam becomes a response
 * here. Errors are told apart by `code` alone. Clients see codes that begin with `JW_`, codes of Fastify in some 4xx, and
 * those that plugins give to errors that are made to be responses; codes of Node, OpenSSL and undici go to the log only.
 */

import type { OutgoingHttpHeaders } from 'node:http'
import { STATUS_CODES } from 'node:http'
import createError from '@fastify/error'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { SeamError, SeamErrorCode } from '../seam.ts'
import { isMadeToRespond } from '../thrown.ts'
import { resetReply } from './bridge/response-fields.ts'
import { noteSeamReason } from './outcome.ts'
import { markLastResponse } from './protocol/last-response.ts'

/** A row: the status, the message for the client, and the error type of RFC 9209 (Proxy-Status), section 2.3. */
type Row = readonly [status: number, message: string, type: string, retryAfterSeconds?: number]

type Coded = SeamError

/** Has a row for each code of the mesh, which the compiler checks, and for those of the edge. */
export const errorTable: Readonly<Record<SeamErrorCode, Row> & Record<string, Row>> = {
  JW_NO_SERVICE: [503, 'The service is not configured', 'destination_not_found'],
  JW_NO_INSTANCE: [503, 'No instance of the service is available', 'destination_unavailable', 1],
  JW_CIRCUIT_OPEN: [503, 'The service is temporarily unavailable (circuit open)', 'destination_unavailable', 1],
  JW_OVERLOADED: [503, 'The service is at its concurrency limit', 'connection_limit_reached', 1],
  JW_UPSTREAM_LIMITED: [503, 'The rate limit toward the service is reached', 'connection_limit_reached', 1],
  JW_INTENTION_DENIED: [403, 'The gateway may not call the service', 'http_request_denied'],
  JW_MESH_CLOSED: [503, 'The gateway is shutting down', 'destination_unavailable', 1],
  JW_CALLER_SILENT: [408, 'The client paused for too long within the request body', 'http_request_error'],
  JW_CALL_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_RESPONSE_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_ATTEMPT_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_UPSTREAM_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_UPSTREAM_CONNECT_TIMEOUT: [504, 'Connecting to the service timed out', 'connection_timeout'],
  JW_UPSTREAM_REFUSED: [502, 'The service refused the connection', 'connection_refused'],
  JW_UPSTREAM_RESET: [
    502,
    'The service closed the connection before its response was complete',
    'connection_terminated'
  ],
  JW_UPSTREAM_UNREACHABLE: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  JW_UPSTREAM_DNS: [502, "The service's host name cannot be resolved", 'dns_error'],
  JW_UPSTREAM_TLS: [502, 'The TLS handshake with the service failed', 'tls_protocol_error'],
  JW_UPSTREAM_UNTRUSTED: [502, "The service's certificate cannot be verified", 'tls_certificate_error'],
  JW_UPSTREAM_MALFORMED: [502, 'The response of the service is malformed', 'http_protocol_error'],
  JW_UPSTREAM_STATUS: [502, 'A service responded with an error', 'http_protocol_error'],
  JW_UPSTREAM_NOT_JSON: [502, 'The response of a service is not JSON', 'http_protocol_error'],
  JW_UPSTREAM_BODY_TOO_LARGE: [502, 'The response of a service is too large', 'http_response_body_size'],
  JW_UPSTREAM_HEADERS_TOO_LARGE: [
    502,
    'The header section of the response is too large',
    'http_response_header_section_size'
  ],
  JW_INSTANCE_REMOVED: [502, 'The instance was removed from the service', 'connection_terminated'],
  JW_SIGNAL_TIMEOUT: [504, 'The service did not respond in time', 'http_response_timeout'],
  JW_BAD_UPGRADE: [502, 'The service switched to a protocol that was not requested', 'http_upgrade_failed'],
  JW_OUT_OF_DESCRIPTORS: [503, 'The gateway is overloaded (file descriptors)', 'proxy_internal_error', 1],
  JW_OUT_OF_MEMORY: [503, 'The gateway is overloaded (memory)', 'proxy_internal_error', 1],
  JW_OUT_OF_PORTS: [503, 'The gateway is overloaded (local ports)', 'proxy_internal_error', 1],
  JW_CLIENT_REQUESTS: [429, 'This client has too many requests in flight', 'http_request_denied', 1],
  JW_CLIENT_WEBSOCKETS: [429, 'This client has too many WebSockets open', 'http_request_denied', 10],
  JW_PLUGIN_FAILED: [500, 'A plugin of the gateway failed', 'proxy_internal_error'],
  JW_KEYS_UNAVAILABLE: [503, 'The keys to verify tokens are not available', 'proxy_internal_error', 1],
  JW_OUT_OF_CPU: [503, 'The gateway is overloaded (event loop)', 'proxy_internal_error', 1],
  JW_BODY_MISMATCH: [400, 'The request body does not match its Content-Length', 'http_request_error'],
  JW_LOOP_DETECTED: [508, 'The request came back to this gateway', 'proxy_loop_detected']
}

/**
 * Codes of Node and undici that come over the seam all the same: of a `Dispatcher` that is not the mesh, of a body that
 * does not match its header section, and of a response that Node refuses to write.
 */
const foreign: readonly (readonly [RegExp, string])[] = [
  [/^UND_ERR_REQ_CONTENT_LENGTH_MISMATCH$/, 'JW_BODY_MISMATCH'],
  [/^UND_ERR_(HEADERS|BODY)_TIMEOUT$/, 'JW_UPSTREAM_TIMEOUT'],
  [/^(UND_ERR_CONNECT_TIMEOUT|ETIMEDOUT)$/, 'JW_UPSTREAM_CONNECT_TIMEOUT'],
  [/^ECONNREFUSED$/, 'JW_UPSTREAM_REFUSED'],
  [/^(ECONNRESET|EPIPE|UND_ERR_(SOCKET|CLOSED|DESTROYED))$/, 'JW_UPSTREAM_RESET'],
  [/^(EHOST|ENET)(UNREACH|DOWN)$/, 'JW_UPSTREAM_UNREACHABLE'],
  [/^(ENOTFOUND|EAI_\w+)$/, 'JW_UPSTREAM_DNS'],
  [/^(EPROTO|ERR_SSL_\w+)$/, 'JW_UPSTREAM_TLS'],
  [/^ERR_TLS_|^UNABLE_TO_|CERT|SELF_SIGNED|ISSUER/, 'JW_UPSTREAM_UNTRUSTED'],
  [/^UND_ERR_HEADERS_OVERFLOW$/, 'JW_UPSTREAM_HEADERS_TOO_LARGE'],
  [/^(HPE_\w+|UND_ERR_RES_\w+|ERR_INVALID_CHAR|ERR_INVALID_HTTP_TOKEN)$/, 'JW_UPSTREAM_MALFORMED'],
  [/^(EMFILE|ENFILE)$/, 'JW_OUT_OF_DESCRIPTORS'],
  [/^(ENOMEM|ENOBUFS)$/, 'JW_OUT_OF_MEMORY'],
  [/^EADDRNOTAVAIL$/, 'JW_OUT_OF_PORTS']
]

/** Returns the error's code. Codes that are no text count as none: a DOMException and errors of some databases have a number. */
function codeOf({ code }: Coded): string | undefined {
  return typeof code === 'string' ? code : undefined
}

/**
 * The code of our own for an error that ended an exchange with a service; undefined for faults of the gateway or of a
 * plugin. Codes of Node and undici mean the service only once it is called: a plugin has connections of its own.
 */
function ownCode(error: Coded, called: boolean): string | undefined {
  const code = codeOf(error)
  if (code?.startsWith('JW_')) return code
  if (!called) return undefined
  // undici's parser errors may lack a code.
  if (code === undefined) return error.name === 'HTTPParserError' ? 'JW_UPSTREAM_MALFORMED' : undefined
  return foreign.find(([pattern]) => pattern.test(code))?.[1]
}

/** Returns the code that Node, OpenSSL or undici gave to what happened, for the log alone. */
function networkCode(error: Coded): string | null {
  const code = codeOf((error.cause ?? error) as Coded)
  return code === undefined || code.startsWith('JW_') ? null : code
}

/** Notes for the access log why a request failed; returns the code of our own. */
export function recordFailure(request: FastifyRequest, error: Coded): string {
  const code = ownCode(error, Boolean(request.exchange)) ?? 'JW_INTERNAL'
  request.failure = code
  request.failureCause = networkCode(error)
  noteSeamReason(request, error)
  return code
}

export const NotFound = createError('JW_NO_ROUTE', 'No route matches this request', 404)
export const LoopDetected = createError('JW_LOOP_DETECTED', 'The request came back to this gateway', 508)

/** Fastify's error shape and the request's id. */
function body(status: number, message: string, code: string | undefined, requestId: string) {
  return { statusCode: status, ...(code && { code }), error: STATUS_CODES[status] ?? 'Error', message, requestId }
}

/** Codes after which the connection is closed: the request may be an attack, or its body is still on the wire. */
const closesConnection = new Set([
  'JW_BAD_TARGET',
  'JW_BAD_HOST',
  'JW_SEVERAL_HOSTS',
  'JW_AMBIGUOUS_PATH',
  'JW_BAD_FRAMING',
  'JW_UNKNOWN_CODING',
  'JW_UNKNOWN_METHOD',
  'JW_BAD_VERSION'
])

function closeAfterResponse(request: FastifyRequest, reply: FastifyReply): void {
  if ('stream' in request.raw) return
  reply.header('connection', 'close')
  markLastResponse(request.raw)
}

/** Seconds; an error that knows when another try may succeed takes precedence over the table. Never 0. */
function retryAfterOf(error: SeamError, fallback: number | undefined): number | undefined {
  const { retryAfterMs } = error
  return retryAfterMs === undefined ? fallback : Math.max(1, Math.ceil(retryAfterMs / 1000))
}

/** Error as the client gets it. */
interface Told {
  readonly status: number
  readonly message: string
  readonly code: string | undefined
  /** The table's: no error handler of a plugin changes the status. */
  readonly isKept: boolean
}

function rowOf(code: string | undefined): Row | undefined {
  return code !== undefined && Object.hasOwn(errorTable, code) ? errorTable[code] : undefined
}

/** Returns whether an error is the gateway's own or of a call to a service; others are of plugins and libraries. */
export const isOurs = (error: Coded, { exchange }: FastifyRequest): boolean =>
  ownCode(error, Boolean(exchange)) !== undefined

/** Makes the reply ready for an error response: of a response of the service, nothing is left. */
export function prepareReply(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  request.exchange?.withdraw()
  // Node's codes; those of undici and of the gateway begin otherwise.
  resetReply(reply, networkCode(error)?.startsWith('ERR_') === true)
  const code = ownCode(error, Boolean(request.exchange)) ?? codeOf(error)
  const status = rowOf(code)?.[0] ?? error.statusCode
  // The rest of a body that is not read must not be taken for the next request.
  const isUnread = status === 408 || status === 413
  // A connection that is closed gives a descriptor back.
  const closes = code !== undefined && (closesConnection.has(code) || code === 'JW_OUT_OF_DESCRIPTORS')
  if (isUnread || closes) closeAfterResponse(request, reply)
}

/** Sets status and header fields of the response to an error, and records the failure. */
export function settle(error: FastifyError, request: FastifyRequest, reply: FastifyReply): Told {
  prepareReply(error, request, reply)
  const code = ownCode(error, Boolean(request.exchange))
  const row = rowOf(code)
  if (row !== undefined) {
    const [status, message, type, retryAfter] = row
    reply.code(status).header('proxy-status', `jingwei; error=${type}`)
    const seconds = retryAfterOf(error, retryAfter)
    if (seconds !== undefined) reply.header('retry-after', seconds)
    recordFailure(request, error)
    return { status, message, code, isKept: true }
  }
  const status = error.statusCode ?? 500
  const given = codeOf(error)
  const isRefusal = given !== undefined && closesConnection.has(given)
  reply.code(status)
  if (status >= 500 && !isRefusal && (code !== undefined || !isMadeToRespond(error))) {
    // A fault of the gateway or of a plugin: the log has the details, the client must not.
    request.log.error({ err: error }, 'request failed')
    const own = recordFailure(request, error)
    const message = code === undefined ? 'The gateway failed to handle the request' : error.message
    return { status, message, code: own, isKept: false }
  }
  request.failure = given ?? null
  return { status, message: error.message, code: given, isKept: false }
}

/** Errors of the table whose status stays while error handlers of plugins render them, by reply. */
const keptErrors = new WeakMap<FastifyReply, FastifyError>()

/** Keeps an error of the table until its response is sent: it stands for what fails on the way. */
export function keepError(error: FastifyError, reply: FastifyReply): void {
  keptErrors.set(reply, error)
}

/** Returns the error to respond to: the kept one, if an error handler, or the response that it has sent, has failed. */
export function errorToRender(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyError {
  const kept = keptErrors.get(reply)
  if (kept === undefined || kept === error) return error
  // The guard of the plugin has logged its faults.
  if (error.code !== 'JW_PLUGIN_FAILED') request.log.error({ err: error }, "a plugin's error handler failed")
  // A serializer that the handler has set may be what failed.
  Reflect.apply(reply.serializer, reply, [null])
  return kept
}

/** Settles the response to an error, and returns its body. */
function render(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  const { status, message, code } = settle(errorToRender(error, request, reply), request, reply)
  return body(status, message, code, request.id)
}

/** Responds to an error; also to those that Fastify meets before it has a route, where no hook runs. */
export function answer(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  // The client has left: a response would be refused, and the error is a consequence.
  if (!reply.sent) reply.send(render(error, request, reply))
}

/**
 * Responds once the response of `answer` could not be sent. Writes the body without hooks and serializers, which would
 * fail again: Fastify's own response would have the message of their error.
 */
function answerWithoutHooks(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) return
  const { raw } = reply
  if (raw.headersSent) {
    raw.destroy()
    return
  }
  const bytes = Buffer.from(JSON.stringify(render(error, request, reply)))
  // Those of the response that failed.
  for (const name of ['transfer-encoding', 'trailer']) reply.removeHeader(name)
  reply.headers({ 'content-type': 'application/json; charset=utf-8', 'content-length': bytes.length })
  reply.hijack()
  try {
    raw.writeHead(raw.statusCode, reply.getHeaders() as OutgoingHttpHeaders).end(bytes)
  } catch (cause) {
    request.log.error({ err: cause }, 'cannot write an error response: connection closed')
    raw.destroy()
  }
}

/** Lets Fastify take a further error handler in one context, of which it warns. It has no public way to do so. */
export function forgetErrorHandler(fastify: FastifyInstance): void {
  const symbols = Object.getOwnPropertySymbols(fastify)
  // A version that remembers the handler elsewhere only warns.
  const isSet = symbols.find(({ description }) => description === 'fastify.errorHandlerAlreadySet')
  if (isSet !== undefined) Reflect.set(fastify, isSet, false)
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Code of our own for what went wrong, for the access log. */
    failure: string | null
    /** The code that Node, OpenSSL or undici gave to it, for the access log alone. */
    failureCause: string | null
  }
}

/** Turns everything that is thrown into a response. */
export default fp(
  async (fastify) => {
    fastify.decorateRequest('failure', null)
    fastify.decorateRequest('failureCause', null)
    // Fastify calls the one that was set last first, and each of the others after the one before it has failed.
    fastify.setErrorHandler<FastifyError>(answerWithoutHooks)
    forgetErrorHandler(fastify)
    fastify.setErrorHandler<FastifyError>(answer)
  },
  { name: 'jingwei-errors', fastify: '5.x' }
)
