import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { maskUserinfo } from '../../config/credentials.ts'
import { directionsOf } from '../../config/direction.ts'
import { parseTraceparent } from '../spans.ts'
import type { AccessFields } from './access-log/fields.ts'
import { explainFilters } from './access-log/filters.ts'
import type { AccessLogOptions } from './access-log/options.ts'
import { AccessLogOrSwitch, checkAccessLog, checkRoutes } from './access-log/options.ts'
import type { Output } from './access-log/output.ts'
import { outputFor } from './access-log/output.ts'
import { edgeRouteOf, isUnrouted, onUnroutedResponse } from './attach.ts'
import { edgeConcern } from './concern.ts'
import { clientAddressOf } from './protocol/client-address.ts'
import type { Refusal } from './protocol/refusals.ts'
import { onRefused } from './protocol/refusals.ts'
import { parentOf } from './request-trace.ts'

/** Refusals of new connections, logged at most once a second: a flood causes thousands of them. */
const rateLimitedReasons = new Set<Refusal['reason']>(['connections', 'client-connections', 'descriptors'])

declare module '../../config/schema.ts' {
  interface EdgePolicy {
    accessLog?: boolean | AccessLogOptions
  }
}

/** Header section of a service's response, on requests whose lines need it. */
const OF_SERVICE = Symbol('access-log.of-service')
type Seen = { [OF_SERVICE]: IncomingHttpHeaders | null }

type Hook = (request: FastifyRequest, reply: FastifyReply, done: () => void) => void

/** Logs one line per request, by default without the query and without headers other than the user agent: they may carry secrets. */
export default edgeConcern({
  name: 'accessLog',
  options: AccessLogOrSwitch,
  default: true,
  aliases: {
    'fileLog|fileLogger|accessLogs|access_log': 'write accessLog: { file: PATH, format: … }',
    'httpLog|tcpLog|udpLog|syslog|httpLogger|tcpLogger|udpLogger|kafkaLogger|loki|lokiLogger':
      'write edge.accessLog: true; its lines go to stdout, where an agent such as Vector, Fluent Bit or Promtail reads them'
  },
  innerAliases: {
    'path|filePath|output': 'write file: PATH',
    'logFormat|log_format|textFormat|jsonFormat|template': 'write format: a template, or a mapping of templates',
    'bufferingSize|bufferSize|maxBuffer': 'write buffer: SIZE',
    'headers|fields': 'write requestHeaders or responseHeaders: [NAME, …]; omit: [FIELD, …] leaves out others',
    'drop|exclude': 'write omit: [FIELD, …]',
    'status|statuses|filter|if': 'write filters: { statusCodes: [5xx] }',
    'sampling|sample|rate': 'write filters: { sample: 10% }'
  },
  protects: false,
  noShadow: 'it refuses no request',
  ownRoutes: 'always',
  check: checkAccessLog,
  checkAll: checkRoutes,
  complete: (options, absolute) =>
    typeof options === 'boolean' || options.file === undefined ? options : { ...options, file: absolute(options.file) },
  isolate: (options) => {
    if (typeof options === 'boolean') return options
    const { file: _file, ...others } = options
    return others
  },
  explain: (options) => {
    if (typeof options === 'boolean') return 'a JSON line in the log'
    const { file = 'the log', format, filters } = options
    const what =
      typeof format !== 'string' ? 'a JSON line of its own' : format === 'json' ? 'a JSON line' : 'a text line'
    return `${what} in ${file}${filters === undefined ? '' : `, only ${explainFilters(filters)}`}`
  },
  async plugin(fastify, { config: { edge, listeners }, stores, meter, log }) {
    const showsListener = listeners.length > 1
    const showsDirection = directionsOf(listeners).includes('east-west')
    // A check opens no files.
    const isDry = fastify.hasDecorator('dryRun') && fastify.getDecorator('dryRun') === true
    /** Outputs by their options, which many routes share. */
    const outputs = new Map<true | AccessLogOptions, Output>()
    const outputOf = (options: true | AccessLogOptions) => {
      const known = outputs.get(options) ?? outputFor(isDry ? true : options, { stores, meter, log })
      outputs.set(options, known)
      return known
    }
    const arrive: Hook = (request, _reply, done) => {
      // On arrival: later, the socket may be closed and its address unknown.
      clientAddressOf(request)
      request.isTimed = true
      done()
    }
    const logWith = ({ selects, write }: Output, route: string | null): Hook => {
      return (request, reply, done) => {
        const { exchange } = request
        const attempts = exchange?.call?.attempts
        if (
          selects === null ||
          selects({ status: reply.statusCode, durationMs: reply.elapsedTime, attempts: attempts ?? 0 })
        ) {
          const fields = fieldsOf(request, reply, route, showsListener, showsDirection)
          write({ fields, request, reply, ofService: (request as unknown as Seen)[OF_SERVICE] })
        }
        done()
      }
    }
    fastify.decorateRequest(OF_SERVICE, null)
    const { accessLog = false } = edge
    if (accessLog !== false) {
      const output = outputOf(accessLog)
      // A hook for all requests, not of routes: it must run before such hooks of plugins, which may take time.
      fastify.addHook('onRequest', arrive)
      logRefusals(fastify, output, showsListener)
      onUnroutedResponse(fastify, logWith(output, null))
    }
    return (options, { config }) => {
      const output = outputOf(options)
      const onRequest: Hook[] = accessLog === false ? [arrive] : []
      if (output.readsResponse) onRequest.push(keepResponse)
      return { onRequest: inSequence(onRequest), onResponse: logWith(output, edgeRouteOf(config)!.name) }
    }
  }
})

/** Joins hooks that call back at once. */
function inSequence([first, second]: readonly Hook[]): Hook | undefined {
  if (first === undefined || second === undefined) return first
  return (request, reply, done) => first(request, reply, () => second(request, reply, done))
}

/** Keeps the header section of the service's response for the line. */
const keepResponse: Hook = (request, _reply, done) => {
  const { onServiceResponse } = request
  request.onServiceResponse = (headers, status) => {
    ;(request as unknown as Seen)[OF_SERVICE] = request.serviceHeaders ?? headers
    return onServiceResponse?.(headers, status) ?? headers
  }
  done()
}

/** Returns the fields of a request's line. */
function fieldsOf(
  request: FastifyRequest,
  reply: FastifyReply,
  route: string | null,
  showsListener: boolean,
  showsDirection: boolean
): AccessFields {
  const target = request.raw.url!
  // A target in absolute form may have credentials.
  const url = target.startsWith('/') ? target : maskUserinfo(target)
  const query = url.indexOf('?')
  const { exchange } = request
  const by = answeredBy(request, reply)
  return {
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
    listener: showsListener ? request.listener : undefined,
    direction: showsDirection ? request.direction : undefined,
    serverName: undefined,
    traceId: (request.gatewaySpan ?? parseTraceparent(request.raw.headers.traceparent))?.traceId,
    spanId: parentOf(request)?.spanId,
    requestHeaders: undefined,
    responseHeaders: undefined
  }
}

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

/** Logs the refusals that meet no route and no hook. */
function logRefusals(fastify: FastifyInstance, { writeRefusal }: Output, showsListener: boolean): void {
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
    writeRefusal({ requestId, route: null, status, ip, listener, serverName, answeredBy, error, reason })
  })
}
