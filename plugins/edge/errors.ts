/**
 * The gateway's one error table: what a code means to the client. Everything that fails, on either side of the
 * seam, becomes a response here; codes of the mesh, of undici and of Node are told apart by `code` alone.
 */

import { STATUS_CODES } from 'node:http'
import createError from '@fastify/error'
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { part } from './parting.ts'
import { resetReply } from './response-fields.ts'

/** A row: the status, what the client is told, and the error type of RFC 9209 (Proxy-Status), section 2.3. */
type Row = readonly [status: number, message: string, type: string, retryAfterSeconds?: number]

export const errorTable: Readonly<Record<string, Row>> = {
  JW_NO_SERVICE: [503, 'The service is not known', 'destination_not_found'],
  JW_NO_INSTANCE: [503, 'No instance of the service is available', 'destination_unavailable', 1],
  JW_CIRCUIT_OPEN: [503, 'The service is failing and is given a rest', 'destination_unavailable', 1],
  JW_OVERLOADED: [503, 'The service has as much to do as it may', 'connection_limit_reached', 1],
  JW_UPSTREAM_LIMITED: [503, 'The rate limit toward the service is reached', 'connection_limit_reached', 1],
  JW_INTENTION_DENIED: [403, 'The gateway may not call the service', 'http_request_denied'],
  JW_IDENTITY_MISMATCH: [502, 'The service could not be trusted', 'tls_certificate_error'],
  JW_MESH_CLOSED: [503, 'The gateway is shutting down', 'destination_unavailable', 1],
  JW_CALLER_SILENT: [408, 'The client sent nothing of its body for too long', 'http_request_error'],
  JW_CALL_TIMEOUT: [504, 'The service did not answer in time', 'http_response_timeout'],
  JW_ATTEMPT_TIMEOUT: [504, 'The service did not answer in time', 'http_response_timeout'],
  UND_ERR_CONNECT_TIMEOUT: [504, 'The service could not be reached in time', 'connection_timeout'],
  UND_ERR_HEADERS_TIMEOUT: [504, 'The service did not answer in time', 'http_response_timeout'],
  ETIMEDOUT: [504, 'The service could not be reached in time', 'connection_timeout'],
  ECONNREFUSED: [502, 'The service refused the connection', 'connection_refused'],
  ECONNRESET: [502, 'The service closed the connection', 'connection_terminated'],
  EPIPE: [502, 'The service closed the connection', 'connection_terminated'],
  UND_ERR_SOCKET: [502, 'The service closed the connection', 'connection_terminated'],
  UND_ERR_CLOSED: [502, 'The service closed the connection', 'connection_terminated'],
  UND_ERR_DESTROYED: [502, 'The service closed the connection', 'connection_terminated'],
  EHOSTUNREACH: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  ENETUNREACH: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  ENOTFOUND: [502, "The service's name cannot be resolved", 'dns_error'],
  EAI_AGAIN: [502, "The service's name cannot be resolved", 'dns_error'],
  EHOSTDOWN: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  EADDRNOTAVAIL: [502, 'The service cannot be reached', 'destination_ip_unroutable'],
  EPROTO: [502, 'No secure connection to the service', 'tls_protocol_error'],
  ERR_ASSERTION: [502, 'The response of the service is malformed', 'http_protocol_error'], // undici, of a 101
  UND_ERR_HEADERS_OVERFLOW: [502, 'The response of the service is malformed', 'http_response_header_section_size'],
  // Raised by Node when we write what the service said.
  ERR_INVALID_CHAR: [502, 'The response of the service is malformed', 'http_protocol_error'],
  ERR_INVALID_HTTP_TOKEN: [502, 'The response of the service is malformed', 'http_protocol_error'],
  UND_ERR_REQ_CONTENT_LENGTH_MISMATCH: [400, 'The body does not fit its Content-Length', 'http_request_error'],
  JW_LOOP_DETECTED: [508, 'The request came back to this gateway', 'proxy_loop_detected'],
  JW_BAD_UPGRADE: [502, 'The service switched to another protocol', 'http_upgrade_failed']
}

/** Codes that come in families: llhttp's parser errors, TLS failures. */
const families: readonly (readonly [RegExp, Row])[] = [
  [/^(HPE_|UND_ERR_RES_)/, [502, 'The response of the service is malformed', 'http_protocol_error']],
  [/^(ERR_TLS_|ERR_SSL_)|CERT|SELF_SIGNED|ISSUER/, [502, 'The service could not be trusted', 'tls_certificate_error']]
]

/** Codes of Node and undici mean the service only once one is being called: a plugin has failures of its own. */
function lookUp(code: string | undefined, called: boolean): Row | undefined {
  if (code === undefined || !(called || code.startsWith('JW_'))) return undefined
  return (
    (Object.hasOwn(errorTable, code) ? errorTable[code] : undefined) ??
    families.find(([pattern]) => pattern.test(code))?.[1]
  )
}

export const LoopDetected = createError('JW_LOOP_DETECTED', 'The request came back to this gateway', 508)

/** undici's parser errors may come without their code. */
export function codeOf(error: Error & { code?: string }): string | undefined {
  return error.code ?? (error.name === 'HTTPParserError' ? 'HPE_INVALID_RESPONSE' : undefined)
}

/** Fastify's error shape and the request's id. */
function body(status: number, message: string, code: string | undefined, requestId: string) {
  return { statusCode: status, ...(code && { code }), error: STATUS_CODES[status] ?? 'Error', message, requestId }
}

/** After these, nothing more is read of the connection: what was refused is a sign of tampering, or has a body left. */
const parting = new Set([
  'JW_BAD_TARGET',
  'JW_BAD_HOST',
  'JW_SEVERAL_HOSTS',
  'JW_AMBIGUOUS_PATH',
  'FST_ERR_BAD_URL', // before its framing was looked at
  'JW_BAD_FRAMING',
  'JW_UNKNOWN_CODING',
  'JW_BAD_VERSION'
])

function partFrom(request: FastifyRequest, reply: FastifyReply): void {
  if ('stream' in request.raw) return
  reply.header('connection', 'close')
  part(request.raw)
}

/** Seconds, where the error knows better than the table when another try may fare well; never at once. */
function retryAfterOf(error: Error & { retryAfterMs?: number }, fallback: number | undefined): number | undefined {
  const { retryAfterMs } = error
  return retryAfterMs === undefined ? fallback : Math.max(1, Math.ceil(retryAfterMs / 1000))
}

/** The answer to an error; also for those that Fastify meets before it has a route, where no hook runs. */
export function answer(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  resetReply(reply)
  const code = codeOf(error)
  const row = lookUp(code, Boolean(request.exchange))
  if (row !== undefined) {
    const [status, message, type, retryAfter] = row
    if (status === 408) partFrom(request, reply)
    reply.header('proxy-status', `jingwei; error=${type}`)
    const seconds = retryAfterOf(error, retryAfter)
    if (seconds !== undefined) reply.header('retry-after', seconds)
    request.failure = code ?? null
    reply.code(status).send(body(status, message, code, request.id))
    return
  }
  const status = error.statusCode ?? 500
  // What is left of a body that we will not read must not be taken for the next request.
  if (status === 408 || status === 413 || parting.has(error.code)) partFrom(request, reply)
  if (status >= 500 && !parting.has(error.code)) {
    // Ours, or a plugin's: the log has the details, the client must not.
    request.log.error({ err: error }, 'request failed')
    request.failure = error.code ?? 'JW_INTERNAL'
    const own = error.code?.startsWith('JW_')
    const message = own ? error.message : 'The gateway failed to handle the request'
    reply.code(status).send(body(status, message, own ? error.code : undefined, request.id))
    return
  }
  request.failure = error.code ?? null
  reply.code(status).send(body(status, error.message, error.code, request.id))
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Code of what went wrong, for the access log. */
    failure: string | null
  }
}

/** Turns everything that is thrown into a response. */
export default fp(
  async (fastify) => {
    fastify.decorateRequest('failure', null)
    fastify.setErrorHandler<FastifyError>(answer)
  },
  { name: 'jingwei-errors', fastify: '5.x' }
)
