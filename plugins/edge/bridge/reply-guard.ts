/**
 * The last `onSend` hook of every route, before Fastify writes. Responses that Fastify sends pass it: those of services on
 * the reply path, of plugins' own routes, of @fastify/http-proxy, early replies of hooks, and errors. What is written to
 * the client's socket as it comes does not.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest, onSendHookHandler, RouteOptions } from 'fastify'
import fp from 'fastify-plugin'
import { asError } from '../../thrown.ts'
import { recordFailure } from '../errors.ts'
import { recordFirstByte, recordHeadWritten } from '../outcome.ts'
import { breakOff } from './break-off.ts'
import { hasNoContent, refusal, repairHead, settleFields } from './reply-head.ts'
import { ReplyResponse } from './reply-response.ts'
import { guardTrailers } from './reply-trailers.ts'
import { guardWrites, releaseWrites } from './reply-writer.ts'
import { discard, ServiceBody, streamOf } from './service-body.ts'
import { replyFault } from './stream-faults.ts'

type Done = (error: Error | null, payload?: unknown) => void

declare module 'fastify' {
  interface FastifyInstance {
    /** Attaches the hook to the routes that were added until now. */
    guardReplies: () => void
    /** Attaches the hook behind all hooks that a route or a not-found handler has. */
    guardRepliesOf: (route: RouteOptions) => void
  }
}

/** Before the plugins of users, whose routes it collects. */
export default fp(
  async (fastify) => {
    guardTrailers(fastify)
    const routes: RouteOptions[] = []
    fastify.decorate('guardReplies', () => {
      for (const route of routes.splice(0)) guardRepliesOf(route)
    })
    fastify.decorate('guardRepliesOf', guardRepliesOf)
    fastify.addHook('onRoute', (route) => {
      // The bridge attaches it to the configured ones.
      if (route.config?.route === undefined) routes.push(route)
    })
  },
  { name: 'jingwei-reply-guard', fastify: '5.x' }
)

export function guardRepliesOf(route: RouteOptions): void {
  const others = [route.onSend ?? []].flat().filter((hook) => hook !== proceed)
  Object.assign(route, { onSend: [...others, proceed] })
}

/** Requests whose response was refused once. A hook that does the same to the error response does not have it refused. */
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
  const error = refusal(request, reply, stream !== null)
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

/** Returns the body of a `Response`, whose status and headers go to the reply, as Fastify would do it afterwards. */
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
  settleFields(request, reply, stream !== null && !isEmpty)
  // The bridge flushes the header section of a service's body at once; of other streams, it leaves with the first bytes.
  if (stream === null || isEmpty || stream instanceof ServiceBody) recordFirstByte(request, reply)
  else recordHeadWritten(request, reply)
  // The guard is left out where nothing can differ: it takes a third of the time of a small response.
  if (stream !== null && !isEmpty && (exchange === null || exchange.needsCount(stream))) {
    guardWrites(reply, (error) => {
      if (exchange === null) end(request, reply, stream, error)
      else exchange.refuse(error)
    })
  }
  done(null, isEmpty ? null : payload)
}

/** Ends a response whose stream cannot be sent as it is. */
function end(request: FastifyRequest, reply: FastifyReply, stream: Readable, error: Error): void {
  const fault = replyFault(request, error)
  if (reply.raw.headersSent) {
    recordFailure(request, fault)
    // Otherwise the end of the call would be recorded as the failure.
    request.exchange?.cancel(fault)
    breakOff(request.raw, reply.raw)
    discard(stream)
  } else if (stream.destroyed || stream.readableEnded) reply.send(fault)
  // Fastify turns the error of the stream that it reads into an error response.
  else stream.destroy(fault)
}
