/**
 * The last `onSend` hook of every route, before Fastify writes the response. All responses that Fastify sends pass it:
 * those of services on the reply path, of plugins' own routes, of @fastify/http-proxy, early replies of hooks, and errors.
 * Responses on the raw path do not.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, onSendHookHandler, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { asError } from '../../thrown.ts'
import { isOfGateway, recordFailure } from '../errors.ts'
import { recordFirstByte, recordHeadWritten } from '../outcome.ts'
import { abortResponse } from './abort-response.ts'
import { besideFields, hasNoContent, headFault, normalizeFields, repairHead } from './reply-head.ts'
import { ReplyResponse } from './reply-response.ts'
import { guardTrailers } from './reply-trailers.ts'
import { guardWrites, releaseWrites } from './reply-writer.ts'
import { discard, ServiceBody, streamOf } from './service-body.ts'
import { replyFault } from './stream-faults.ts'

type Done = (error: Error | null, payload?: unknown) => void

declare module 'fastify' {
  interface FastifyInstance {
    /** Attaches the hook to the routes that have been added so far. */
    guardReplies: () => void
    /** Attaches the hook after all `onSend` hooks of a route or not-found handler. */
    guardRepliesOf: (route: RouteOptions) => void
  }
}

/** Registered before users' plugins, whose routes it collects. */
export default fp(
  async (fastify) => {
    guardTrailers(fastify)
    const routes: RouteOptions[] = []
    fastify.decorate('guardReplies', () => {
      for (const route of routes.splice(0)) guardRepliesOf(route)
    })
    fastify.decorate('guardRepliesOf', guardRepliesOf)
    fastify.addHook('onRoute', (route) => {
      // The bridge attaches the hook to configured routes.
      if (route.config?.route === undefined) routes.push(route)
    })
  },
  { name: 'jingwei-reply-guard', fastify: '5.x' }
)

export function guardRepliesOf(route: RouteOptions): void {
  const others = [route.onSend ?? []].flat().filter((hook) => hook !== proceed)
  Object.assign(route, { onSend: [...others, proceed] })
}

/**
 * Requests of which one response was refused because of its header section. If hooks make the header section of the error
 * response invalid, too, it is repaired: a second refusal would lead to another error response, without an end.
 */
const refused = new WeakSet<FastifyRequest>()

export const proceed: onSendHookHandler = (request, reply, given, done: Done) => {
  releaseWrites(reply.raw)
  let payload = given
  try {
    payload = unwrapped(reply, given)
  } catch (error) {
    done(asError(error))
    return
  }
  const stream = streamOf(payload)
  const error = headFault(request, reply, stream !== null)
  if (error !== null && !refused.has(request)) {
    refused.add(request)
    discard(stream)
    done(error)
    return
  }
  if (error !== null) repairHead(reply)
  const { exchange } = request
  if (exchange instanceof ReplyResponse) {
    const settle: Done = (error, payload) =>
      error === null ? send(request, reply, payload, done, exchange) : done(error)
    exchange.proceed(stream ?? payload, settle)
  } else send(request, reply, stream ?? payload, done, null)
}

/** Unwraps a `Response` as Fastify would do later: sets its status and headers on the reply, and returns its body. */
function unwrapped(reply: FastifyReply, payload: unknown): unknown {
  if (!(payload instanceof Response)) return payload
  if (payload.bodyUsed) throw new Error('the body of the Response has been read')
  reply.code(payload.status)
  for (const [name, value] of payload.headers) reply.header(name, value)
  return payload.body
}

function send(
  request: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
  done: Done,
  exchange: ReplyResponse | null
): void {
  const stream = streamOf(payload)
  const isEmpty = stream !== null && hasNoContent(request, reply)
  if (isEmpty) discard(stream)
  normalizeFields(request, reply, stream !== null && !isEmpty)
  // The bridge flushes the header section at once; for other streams, Node sends it with the first chunk.
  if (stream === null || isEmpty || stream instanceof ServiceBody) recordFirstByte(request, reply)
  else recordHeadWritten(request, reply)
  if (stream !== null && !isEmpty && exchange === null) recordStreamFailure(request, reply, stream)
  // No guard if the length cannot differ: the guard takes a third of the time of a small response.
  if (stream !== null && !isEmpty && (exchange === null || exchange.needsCount(stream))) {
    guardWrites(reply, (error) => {
      if (exchange === null) end(request, reply, stream, error)
      else exchange.refuse(error)
    })
  }
  done(null, isEmpty ? null : besideFields(payload, reply))
}

/**
 * Logs and records the failure of a stream that a plugin sends. Once the header section is sent, Fastify closes the connection,
 * which would be recorded as a disconnect of the client (499) and hide the error.
 */
function recordStreamFailure(request: FastifyRequest, reply: FastifyReply, stream: Readable): void {
  const record = (error: Error) => {
    // Before the header section is sent, the error becomes an error response.
    if (!reply.raw.headersSent || request.failure !== null) return
    if (isOfGateway(error, request)) {
      request.log.warn({ err: error }, 'a call failed whose data the response contains: response closed before its end')
      recordFailure(request, error)
    } else recordFailure(request, replyFault(request, error))
  }
  stream.once('error', record)
  stream.once('close', () => {
    if (!stream.readableEnded) record(new Error('its stream was destroyed before its end'))
  })
}

/** Ends a response whose stream does not fit its header section. */
function end(request: FastifyRequest, reply: FastifyReply, stream: Readable, error: Error): void {
  const fault = replyFault(request, error)
  if (reply.raw.headersSent) {
    recordFailure(request, fault)
    // Cancelled first: otherwise the aborted call would be recorded as the failure.
    request.exchange?.cancel(fault)
    abortResponse(request.raw, reply.raw)
    discard(stream)
  } else if (stream.destroyed || stream.readableEnded) reply.send(fault)
  // Fastify turns the error of the stream that it reads into an error response.
  else stream.destroy(fault)
}
