import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { maskUserinfo } from '../../config/credentials.ts'
import { directionsOf } from '../../config/direction.ts'
import Type from '../../config/schema/type.ts'
import { edgeRouteOf, isUnrouted, onUnroutedResponse } from './attach.ts'
import { edgeConcern } from './concern.ts'
import { clientAddressOf } from './protocol/client-address.ts'
import type { Refusal } from './protocol/refusals.ts'
import { onRefused } from './protocol/refusals.ts'

/** Marks a log object as plain for the gateway's logger: no serializer, error, cycle or character to escape in it. */
const plain = Symbol.for('jingwei.log.plain')

/** Refusals of new connections, logged at most once a second: a flood causes thousands of them. */
const rateLimitedReasons = new Set<Refusal['reason']>(['connections', 'client-connections', 'descriptors'])

declare module '../../config/schema.ts' {
  interface EdgePolicy {
    accessLog?: boolean
  }
}

/** Logs one JSON line per request, without the query and without headers other than the user agent: they may carry secrets. */
export default edgeConcern({
  name: 'accessLog',
  options: Type.Boolean({ description: 'Log one JSON line for each request.' }),
  default: true,
  aliases: {
    'httpLog|fileLog|tcpLog|syslog|httpLogger|fileLogger': 'write edge.accessLog: true; its lines go to stdout'
  },
  protects: false,
  noShadow: 'it refuses no request',
  ownRoutes: 'always',
  async plugin(fastify, { config: { edge, listeners } }) {
    const hasSeveralListeners = listeners.length > 1
    const hasServices = directionsOf(listeners).includes('east-west')
    const arrive = (request: FastifyRequest, _reply: FastifyReply, done: () => void) => {
      // On arrival: later, the socket may be closed and its address unknown.
      clientAddressOf(request)
      request.isTimed = true
      done()
    }
    const log = (route: string | null) => (request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      const target = request.raw.url!
      // A target in absolute form may have credentials.
      const url = target.startsWith('/') ? target : maskUserinfo(target)
      const query = url.indexOf('?')
      const { exchange } = request
      const by = answeredBy(request, reply)
      fastify.log.info(
        {
          requestId: request.id,
          method: request.method,
          path: query === -1 ? url : url.slice(0, query),
          route,
          status: reply.statusCode,
          durationMs: rounded(reply.elapsedTime),
          ttfbMs: rounded(request.firstByteMs),
          upstreamMs: rounded(exchange?.upstreamMs),
          ip: clientAddressOf(request),
          agent: request.headers['user-agent'],
          consumer: request.consumer?.id,
          service: exchange?.call?.service,
          instance: exchange?.call?.instance,
          attempts: exchange?.call?.attempts,
          answeredBy: by,
          fallback: by === 'fallback' ? exchange?.call?.substituteKind : undefined,
          calls: request.partialCalls ?? undefined,
          bytesSent: exchange?.bytesSent,
          error: request.failure ?? undefined,
          reason: request.refusalReason ?? undefined,
          cause: request.failureCause ?? undefined,
          shadow: request.shadowRefusals ?? undefined,
          listener: hasSeveralListeners ? request.listener : undefined,
          direction: hasServices ? request.direction : undefined,
          traceId: traceIdOf(request.headers.traceparent),
          // Last: V8 adds the members that follow a computed name one by one, which takes 1 µs.
          [plain]: true
        },
        'request'
      )
      done()
    }
    if (edge.accessLog !== false) {
      // A hook for all requests, not of routes: it must run before such hooks of plugins, which may take time.
      fastify.addHook('onRequest', arrive)
      logRefusals(fastify, hasSeveralListeners)
      onUnroutedResponse(fastify, log(null))
    }
    const onRequest = edge.accessLog === false ? arrive : undefined
    return (_on, { config }) => ({ onRequest, onResponse: log(edgeRouteOf(config)!.name) })
  }
})

/** Rounds milliseconds to two decimal places. */
const rounded = (ms: number | null | undefined) => (typeof ms === 'number' ? Math.round(ms * 100) / 100 : undefined)

/**
 * Returns the source of a response, if it is not an instance of the route's service: a substitute of the mesh, the gateway,
 * or a plugin's route, hook or interceptor. Undefined if an instance has responded, or if there is no response.
 */
function answeredBy(request: FastifyRequest, reply: FastifyReply): string | undefined {
  const { exchange, failure, isOwnResponse, partialCalls } = request
  if (exchange?.hasResponded) {
    const { call } = exchange
    if (call?.substitute) return call.substitute
    // Without an attempt, only an interceptor can have responded.
    return call === null || call.attempts === 0 ? 'plugin' : undefined
  }
  if (!reply.raw.headersSent) return undefined
  if (partialCalls !== null && failure === null) return 'compose'
  return failure !== null || isOwnResponse || isUnrouted(request) ? 'gateway' : 'plugin'
}

/** Version, trace id, span id and flags (W3C Trace Context, 3.2). Ids of zeros are invalid. */
const traceparentForm = /^(?!ff)[\da-f]{2}-(?!0{32})[\da-f]{32}-(?!0{16})[\da-f]{16}-[\da-f]{2}(?:$|-)/
const traceparentLength = 55

/** Returns the trace id of a request; undefined if the header is missing or malformed. */
function traceIdOf(traceparent: string | string[] | undefined): string | undefined {
  if (typeof traceparent !== 'string' || !traceparentForm.test(traceparent)) return undefined
  // Version 00 has no further fields; later versions may have them.
  if (traceparent.length > traceparentLength && traceparent.startsWith('00')) return undefined
  return traceparent.slice(3, 35)
}

/** Logs the refusals that meet no route and no hook. */
function logRefusals(fastify: FastifyInstance, showsListener: boolean): void {
  let quietUntil = 0
  onRefused(fastify.server, ({ requestId, status, ip, code, reason, serverName, listener: name }) => {
    if (rateLimitedReasons.has(reason)) {
      // A line for each would let a flood of connections fill the log.
      const now = Date.now()
      if (now < quietUntil) return
      quietUntil = now + 1000
    }
    const answeredBy = status === undefined ? undefined : 'gateway'
    const error = code ?? reason
    const listener = showsListener ? name : undefined
    fastify.log.info(
      { requestId, route: null, status, ip, listener, serverName, answeredBy, error, reason, [plain]: true },
      'request'
    )
  })
}
