import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { inContext } from '../async-context.ts'
import { handshakeOf } from './handshake.ts'
import { InFlight, reset } from './in-flight.ts'

/** Reason for ending an exchange before its response is complete, without fault of the service. */
class Gone extends Error {
  readonly code: string
  /** Status in the log and the metrics. */
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
    /** Aborted when the client disconnects; null until `goneSignal` is called. */
    gone: AbortController | null
  }
}

/** Returns a signal that is aborted, with the reason, when the client disconnects or has disconnected. */
export function goneSignal(request: FastifyRequest): AbortSignal {
  request.gone ??= new AbortController()
  return request.gone.signal
}

/** Detects at any stage that a client disconnects: cancels the exchange with the service and ends the request. */
export default fp(
  async (fastify) => {
    const isAborting = fastify.hasDecorator('isAborting')
      ? fastify.getDecorator<() => boolean>('isAborting')
      : () => false
    fastify.decorateRequest('gone', null)
    fastify.decorateRequest('olderInFlight', null)
    fastify.decorateRequest('newerInFlight', null)
    fastify.decorateRequest('inFlightCount', null)
    const inFlight = new InFlight()
    fastify.decorate('inFlight', inFlight)
    fastify.addHook('onRequest', (request, reply, done) => {
      const { raw } = request
      // The tunnel tracks the connection of a handshake, and its response never emits `close`.
      const isUpgrade = handshakeOf(raw) !== undefined
      if (!isUpgrade) inFlight.enter(request)
      // 'close' of the response: that of the request is emitted as soon as its body has been read.
      reply.raw.once('close', () => {
        inContext(request, () => end(request, reply, isAborting()))
        if (!isUpgrade) inFlight.leave(request)
      })
      // HTTP/2 reports a response as finished even if its stream was reset; the request emits 'aborted', and earlier.
      if (raw.httpVersionMajor > 1)
        raw.once('aborted', () => inContext(request, () => end(request, reply, isAborting())))
      // No concern sees it: such clients would have one key together, that of clients at a Unix socket.
      if (isPeerGone(raw)) reset(raw)
      else done()
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
    // For the log and the metrics, even if another status has been sent.
    raw.statusCode = reason.status
  }
  // A hook that is still running must not send a response.
  reply.hijack()
  request.exchange?.cancel(reason)
  request.gone ??= new AbortController()
  request.gone.abort(reason)
  // Fastify runs onResponse hooks only on 'finish' or 'error', and a disconnected client causes neither.
  if (raw.listenerCount('error') > 0) raw.emit('error', new ClosedEarly(reason))
}

/** Error with a code that Fastify ignores. Fastify logs any other error as a failure of the handler. */
class ClosedEarly extends Error {
  readonly code = 'ERR_STREAM_PREMATURE_CLOSE'

  constructor(reason: Gone) {
    super(reason.message, { cause: reason })
  }
}

/**
 * Returns whether a client has reset its connection before its address was read: a TCP connection has a local address
 * nevertheless, and one at a Unix socket has neither.
 */
function isPeerGone({ socket }: IncomingMessage): boolean {
  return socket.remoteAddress === undefined && (socket.destroyed || socket.localAddress !== undefined)
}

/** Returns whether a response has been sent: over HTTP/2, handed over for sending. */
export function isFinished(raw: ServerResponse): boolean {
  return raw.writableFinished || ('stream' in raw && raw.writableEnded)
}
