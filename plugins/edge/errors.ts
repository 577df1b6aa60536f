/**
 * Responses for errors, by the error table. Every failure of the edge and of the mesh becomes a response here. Only `code` distinguishes errors. Clients see codes that begin with `JW_`, codes of Fastify in some 4xx, and codes of
 * errors that plugins make as responses. Codes of Node, OpenSSL and undici go to the log only.
 */
import type { OutgoingHttpHeaders } from 'node:http'
import type { Http2ServerRequest } from 'node:http2'
import createError from '@fastify/error'
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Row } from '../error-table.ts'
import { errorTable } from '../error-table.ts'
import { STATUS_CODES } from '../node-http.ts'
import type { SeamError } from '../seam.ts'
import { callHeader, errorHeader } from '../seam-headers.ts'
import { isMadeToRespond } from '../thrown.ts'
import { errorText } from './bridge/handed-over.ts'
import { resetReply } from './bridge/response-fields.ts'
import { decorateErrorBodies, errorBodyOf, setErrorBody } from './error-bodies.ts'
import { recordSeamReason } from './outcome.ts'
import { endStreamAfterResponse, markLastResponse } from './protocol/last-response.ts'

type Coded = SeamError

/**
 * Codes of Node and undici that may come over the seam: from a `Dispatcher` other than the mesh, from a body that does not
 * match its header section, and from a response that Node refuses to write.
 */
const foreignCodes: readonly (readonly [RegExp, string])[] = [
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

/** Returns the error's code if it is a string. A DOMException and errors of some databases have a number instead. */
function codeOf({ code }: Coded): string | undefined {
  return typeof code === 'string' ? code : undefined
}

/**
 * Returns the `JW_` code for an error of an exchange with a service; undefined for faults of the gateway or of a plugin.
 * Codes of Node and undici concern the service only once it is called: a plugin may have connections of its own.
 */
function gatewayCode(error: Coded, called: boolean): string | undefined {
  const code = codeOf(error)
  if (code?.startsWith('JW_')) return code
  if (!called) return undefined
  // undici's parser errors may lack a code.
  if (code === undefined) return error.name === 'HTTPParserError' ? 'JW_UPSTREAM_MALFORMED' : undefined
  return foreignCodes.find(([pattern]) => pattern.test(code))?.[1]
}

/** Returns whether services have been called for a request, by the bridge or by a composed route. */
const hasCalled = ({ exchange, partialCalls }: FastifyRequest) => Boolean(exchange ?? partialCalls)

/** Returns the code of Node, OpenSSL or undici for the failure; for the log only. */
function networkCode(error: Coded): string | null {
  const code = codeOf((error.cause ?? error) as Coded)
  return code === undefined || code.startsWith('JW_') ? null : code
}

/** Records for the access log why a request failed; returns the `JW_` code. */
export function recordFailure(request: FastifyRequest, error: Coded): string {
  const code = gatewayCode(error, hasCalled(request)) ?? 'JW_INTERNAL'
  request.failure = code
  request.failureCause = networkCode(error)
  recordSeamReason(request, error)
  return code
}

export const NotFound = createError('JW_NO_ROUTE', 'No route matches this request', 404)
export const LoopDetected = createError('JW_LOOP_DETECTED', 'The request came back to this gateway', 508)

/** Returns the body of an error response: Fastify's error shape and the request's id. */
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

/** Codes after which the rest of a body is of no use, so that the client need not send it. */
const endsBody = new Set(['JW_BAD_ENCODING', 'JW_BODY_BUSY', 'JW_DECOMPRESSION_BUSY'])

function closeAfterResponse({ raw }: FastifyRequest, reply: FastifyReply): void {
  if ('stream' in raw) {
    endStreamAfterResponse(raw as unknown as Http2ServerRequest)
    return
  }
  reply.header('connection', 'close')
  markLastResponse(raw)
}

/** Returns the value of `Retry-After` in seconds: that of the error, else that of the table. Never 0. */
function retryAfterOf(error: SeamError, fallback: number | undefined): number | undefined {
  const { retryAfterMs } = error
  return retryAfterMs === undefined ? fallback : Math.max(1, Math.ceil(retryAfterMs / 1000))
}

/** An error as the client sees it. */
interface ErrorResponse {
  readonly status: number
  readonly message: string
  readonly code: string | undefined
  /** True if the status is from the table, so that no error handler of a plugin may change it. */
  readonly isFixed: boolean
}

function rowOf(code: string | undefined): Row | undefined {
  return code !== undefined && Object.hasOwn(errorTable, code) ? errorTable[code] : undefined
}

/** Returns whether an error is of the gateway or of a call to a service; other errors are of plugins and libraries. */
export const isOfGateway = (error: Coded, request: FastifyRequest): boolean =>
  gatewayCode(error, hasCalled(request)) !== undefined

/** An error of @fastify/send. */
interface WithHeaders extends FastifyError {
  readonly headers?: { readonly 'Content-Range'?: string }
}

/** Makes the reply ready for an error response: removes what a response of the service has left on it. */
export function prepareReply(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  request.exchange?.withdraw()
  // Codes of Node, and no others, begin with ERR_.
  resetReply(reply, networkCode(error)?.startsWith('ERR_') === true)
  // The length of a file (RFC 9110, 15.5.17).
  const range = error.statusCode === 416 ? (error as WithHeaders).headers?.['Content-Range'] : undefined
  if (range !== undefined) reply.header('content-range', range)
  const code = gatewayCode(error, hasCalled(request)) ?? codeOf(error)
  const status = rowOf(code)?.[0] ?? error.statusCode
  // The unread rest of the body must not be parsed as the next request.
  const isUnread =
    status === 408 || status === 413 || (code !== undefined && endsBody.has(code) && !request.raw.complete)
  // Closing the connection frees a descriptor.
  const closes = code !== undefined && (closesConnection.has(code) || code === 'JW_OUT_OF_DESCRIPTORS')
  if (isUnread || closes) closeAfterResponse(request, reply)
}

/** Returns whether a gateway has handed the call over, also one that this sidecar does not know. */
function isForGateway({ raw, routeOptions }: FastifyRequest, code: string | undefined): boolean {
  const route = routeOptions.config?.route
  return route === undefined ? code === 'JW_NO_SERVICE' && callHeader in raw.headers : route.isHandedOver === true
}

/** Sets status and header fields of the response to an error, and records the failure. */
export function applyTable(error: FastifyError, request: FastifyRequest, reply: FastifyReply): ErrorResponse {
  prepareReply(error, request, reply)
  const code = gatewayCode(error, hasCalled(request))
  const row = rowOf(code)
  if (row !== undefined) {
    const [status, message, type, retryAfter] = row
    reply.code(status).header('proxy-status', `jingwei; error=${type}`)
    const seconds = retryAfterOf(error, retryAfter)
    if (seconds !== undefined) reply.header('retry-after', seconds)
    recordFailure(request, error)
    if (isForGateway(request, code)) reply.header(errorHeader, errorText(code!, error))
    return { status, message, code, isFixed: true }
  }
  const status = error.statusCode ?? 500
  const given = codeOf(error)
  const isRefusal = given !== undefined && closesConnection.has(given)
  reply.code(status)
  if (status >= 500 && !isRefusal && (code !== undefined || !isMadeToRespond(error))) {
    // A fault of the gateway or of a plugin: only the log gets the details.
    request.log.error({ status, err: error }, `request failed with an unexpected error: responding with ${status}`)
    const own = recordFailure(request, error)
    const message = code === undefined ? 'The gateway failed to handle the request' : error.message
    return { status, message, code: own, isFixed: false }
  }
  request.failure = given ?? null
  return { status, message: error.message, code: given, isFixed: false }
}

/** By reply: the table's error that a plugin's error handler is rendering. */
const keptErrors = new WeakMap<FastifyReply, FastifyError>()

/** Stores an error of the table until its response is sent; if an error handler fails, this error is the response. */
export function keepError(error: FastifyError, reply: FastifyReply): void {
  keptErrors.set(reply, error)
}

/** Returns the error to respond to: the stored one, if an error handler or its response has failed. */
export function errorToRender(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyError {
  const kept = keptErrors.get(reply)
  if (kept === undefined || kept === error) return error
  // Faults of plugins are logged by the guard of the plugin.
  if (error.code !== 'JW_PLUGIN_FAILED') request.log.error({ err: error }, "a plugin's error handler failed")
  // The cause may be a serializer that the handler has set.
  Reflect.apply(reply.serializer, reply, [null])
  return kept
}

/** Returns the standard body of an error response, for a response that replaces that of a service. */
export const standardBody = (status: number, request: FastifyRequest) =>
  JSON.stringify(body(status, STATUS_CODES[status] ?? 'Error', undefined, request.id))

/** Sets status and header fields for an error, and returns the standard body, and the one that a concern has in its place. */
function render(error: FastifyError, request: FastifyRequest, reply: FastifyReply) {
  const told = applyTable(errorToRender(error, request, reply), request, reply)
  const { status, message, code } = told
  const page = errorBodyOf(told, request)
  if (page !== null) setErrorBody(page, reply)
  return { standard: body(status, message, code, request.id), page }
}

/** Responds to an error, also to one that Fastify has before routing, when no hook runs. */
export function respond(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  // The client has disconnected: the error is a consequence, and Fastify would refuse a response.
  if (reply.sent) return
  const { standard, page } = render(error, request, reply)
  // As a Buffer: Fastify would add a charset to the type of a text.
  reply.send(page === null ? standard : Buffer.from(page.body))
}

/**
 * Responds when the response of `respond` could not be sent. Writes the body without hooks and serializers, which would
 * fail again; Fastify's own response would contain the message of their error.
 */
function respondWithoutHooks(error: FastifyError, request: FastifyRequest, reply: FastifyReply): void {
  if (reply.sent) return
  const { raw } = reply
  if (raw.headersSent) {
    raw.destroy()
    return
  }
  const { standard, page } = render(error, request, reply)
  const bytes = Buffer.from(page?.body ?? JSON.stringify(standard))
  // Set for the response that failed.
  for (const name of ['transfer-encoding', 'trailer']) reply.removeHeader(name)
  const type = page?.type ?? 'application/json; charset=utf-8'
  reply.headers({ 'content-type': type, 'content-length': bytes.length })
  reply.hijack()
  try {
    raw.writeHead(raw.statusCode, reply.getHeaders() as OutgoingHttpHeaders).end(bytes)
  } catch (cause) {
    request.log.error({ err: cause }, 'cannot write an error response: connection closed')
    raw.destroy()
  }
}

/** Lets a context have another error handler without Fastify's warning. Fastify has no public way for it. */
export function forgetErrorHandler(fastify: FastifyInstance): void {
  const symbols = Object.getOwnPropertySymbols(fastify)
  // Without the symbol, in a later Fastify, the warning is logged.
  const isSet = symbols.find(({ description }) => description === 'fastify.errorHandlerAlreadySet')
  if (isSet !== undefined) Reflect.set(fastify, isSet, false)
}

declare module 'fastify' {
  interface FastifyRequest {
    /** `JW_` code of the failure, for the access log. */
    failure: string | null
    /** Code of Node, OpenSSL or undici for the failure, for the access log only. */
    failureCause: string | null
  }
}

/** Turns every thrown value into a response. */
export default fp(
  async (fastify) => {
    decorateErrorBodies(fastify)
    fastify.decorateRequest('failure', null)
    fastify.decorateRequest('failureCause', null)
    // Fastify calls the handler that was set last, and an earlier one when a later one has failed.
    fastify.setErrorHandler<FastifyError>(respondWithoutHooks)
    forgetErrorHandler(fastify)
    fastify.setErrorHandler<FastifyError>(respond)
  },
  { name: 'jingwei-errors', fastify: '5.x' }
)
