import type { ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { inContext } from '../async-context.ts'
import { handshakeOf } from './handshake.ts'
import { InFlight } from './in-flight.ts'

/** The answer has nobody to go to before it is complete; blames no instance. */
class Gone extends Error {
  readonly code: string
  /** For the log and the metrics. */
  readonly status: number

  constructor(code: string, status: number, message: string) {
    super(message)
    this.code = code
    this.status = status
  }
}

declare module 'fastify' {
  interface FastifyInstance {
    inFlight: InFlight
  }
  interface FastifyRequest {
    /** Aborted when the client leaves; null while nobody has asked for its signal. */
    gone: AbortController | null
  }
}

/** Returns a signal that is aborted, with the reason, when the client leaves or has left. */
export function goneSignal(request: FastifyRequest): AbortSignal {
  request.gone ??= new AbortController()
  return request.gone.signal
}

/** Notices a client that leaves, at whatever stage: cancels the exchange with the service and ends the request. */
export default fp(
  async (fastify) => {
    const isAborting = fastify.hasDecorator('isAborting')
      ? fastify.getDecorator<() => boolean>('isAborting')
      : () => false
    fastify.decorateRequest('gone', null)
    fastify.decorateRequest('olderInFlight', null)
    fastify.decorateRequest('newerInFlight', null)
    const inFlight = new InFlight()
    fastify.decorate('inFlight', inFlight)
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      // A handshake's connection is tracked as such, and its response never closes.
      const isUpgrade = handshakeOf(raw) !== undefined
      if (!isUpgrade) inFlight.enter(request)
      // 'close' on the response, not on the request: that one fires as soon as a body is read.
      reply.raw.once('close', () => {
        inContext(request, () => end(request, reply, isAborting()))
        if (!isUpgrade) inFlight.leave(request)
      })
      // HTTP/2 calls a response finished even if its stream was reset; the request knows better, and earlier.
      if (raw.httpVersionMajor > 1)
        raw.once('aborted', () => inContext(request, () => end(request, reply, isAborting())))
      done()
    })
  },
  { name: 'jingwei-client-gone', fastify: '5.x' }
)

function end(request: FastifyRequest, reply: FastifyReply, wasCut: boolean): void {
  const { raw } = reply
  if (isFinished(raw)) {
    request.exchange?.release()
    return
  }
  const reason = wasCut
    ? new Gone('JW_DRAIN_TIMEOUT', 503, 'the drain timeout is over')
    : new Gone('JW_CLIENT_GONE', 499, 'the client closed the connection') // nginx's status
  if (request.failure === null) {
    request.failure = reason.code
    // Also behind another status that has gone out.
    raw.statusCode = reason.status
  }
  // Whatever is still under way, a hook that waits for example, has nobody to answer.
  reply.hijack()
  request.exchange?.cancel(reason)
  request.gone ??= new AbortController()
  request.gone.abort(reason)
  // Fastify runs its onResponse hooks on 'finish' or 'error' alone, and a client that leaves causes neither.
  if (raw.listenerCount('error') > 0) raw.emit('error', new ClosedEarly(reason))
}

/** Error with a code that Fastify ignores; it logs any other as a failure of a handler that returned the reply. */
class ClosedEarly extends Error {
  readonly code = 'ERR_STREAM_PREMATURE_CLOSE'

  constructor(reason: Gone) {
    super(reason.message, { cause: reason })
  }
}

function isFinished(raw: ServerResponse): boolean {
  return raw.writableFinished || ('stream' in raw && raw.writableEnded)
}
