import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import createError from '@fastify/error'
import type { FastifyInstance, FastifyServerOptions } from 'fastify'
import { LogController } from 'fastify'
import { readPath } from '../../../config/path-reading.ts'
import type { Config } from '../../../config/schema.ts'
import { listenerNameOf } from '../../listener-of.ts'
import { NotFound, respond } from '../errors.ts'
import { toOriginForm } from './absolute-form.ts'
import { isAnswering, isHandshake } from './handshake.ts'
import { Peers, trustedHops } from './peers.ts'
import { tellRefused } from './refusals.ts'
import { listenerTlsOf } from './tls/index.ts'
import { refuseUnparsable } from './unparsable.ts'

const BadEscape = createError('JW_BAD_TARGET', 'The path has a % without two hexadecimal digits after it', 400)

/** Time to add one route, also on a machine that is slow or busy. */
const ROUTE_MS = 10

/** Returns the options of Fastify's constructor, for a server that listens as the first listener does. */
export function serverOptions(config: Config): FastifyServerOptions {
  return { ...gatewayOptions(config), ...socketOptions(config.listen) } as FastifyServerOptions
}

/** Returns the rules of the router, for all listeners. */
export function gatewayOptions(config: Config): FastifyServerOptions {
  const { listeners, edge, routes } = config
  const peers = new Peers(config)
  return {
    // For `request.ip`, which goes by X-Forwarded-For.
    trustProxy: trustedHops(config) as NonNullable<FastifyServerOptions['trustProxy']>,
    // Fastify's default for a plugin, and time to add the routes, which leaves the event loop free in between.
    pluginTimeout: 10_000 + routes.length * ROUTE_MS,
    // While draining, requests on open connections are served and told to close them.
    return503OnClosing: false,
    // One line a request is the access log's business; in all lines the request's id has one name.
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    clientErrorHandler(this: FastifyInstance, error: Error, socket: Socket) {
      refuseUnparsable(this.server, error, socket)
    },
    rewriteUrl: toOriginForm as FastifyServerOptions['rewriteUrl'],
    // A path that the router cannot decode fails before it has found any hook to run.
    frameworkErrors: (error, request, reply) => {
      peers.settle(request.raw)
      reply.header(edge.requestId.header.toLowerCase(), request.id)
      // Octets that are no UTF-8 are no fault (RFC 3986, 2.5): the path is just one that no route matches.
      const isUnreadable = readPath(request.raw.url!) === null
      const own = error.code === 'FST_ERR_BAD_URL' ? new (isUnreadable ? BadEscape : NotFound)() : error
      respond(own, request, reply)
      const { id: requestId, ip, raw, server } = request
      const from = { requestId, ip, listener: listenerNameOf(raw) }
      tellRefused(server.server, { reason: 'bad-path', status: reply.statusCode, ...from })
    },
    routerOptions: {
      // `//admin` must meet the rules of `/admin`: services often merge the slashes.
      ignoreDuplicateSlashes: true,
      maxParamLength: Math.max(...listeners.map(({ limits }) => limits.url))
    }
  }
}

/** Returns the options of a listening server: limits of its sockets, TLS. */
export function socketOptions({ name, tls, http2, limits, timeouts }: Config['listen']) {
  const common = {
    keepAliveTimeout: timeouts.keepAlive,
    // A whole upload may take its time; `bodyIdle` bounds each silence in it.
    requestTimeout: 0
  }
  const http = {
    maxHeaderSize: limits.headers,
    headersTimeout: timeouts.headers,
    // Node refuses a `headersTimeout` beyond it, and has 5 minutes by default.
    requestTimeout: 0,
    // Interval in which Node looks for clients that exceed `headersTimeout`; its default of 30 s would triple it.
    connectionsCheckingInterval: 1000,
    // A request without a body is no stream: spares it the ticks of one that is read to its end.
    optimizeEmptyRequests: true,
    // Every other Upgrade is ignored, and the request an ordinary one.
    shouldUpgradeCallback: (request: IncomingMessage) => isHandshake(request) && !isAnswering(request)
  }
  if (tls === undefined) return { ...common, http }
  const https = {
    ...http,
    ...listenerTlsOf(name, tls).serverOptions(),
    handshakeTimeout: timeouts.headers,
    ...(http2 && http2Options({ limits, timeouts }))
  }
  // Ours goes by streams, not by bytes.
  return { ...common, https, ...(http2 && { http2: true, http2SessionTimeout: 0 }) }
}

/** Bytes of the shortest field, of one character, in HTTP/1.1 and as HTTP/2 counts it (RFC 9113, 6.5.2). */
const SHORTEST_FIELD = { http1: 5, http2: 33 }

const mostStreams = 128
/**
 * Beyond it, Node refuses new streams, which no hook sees. A client may leave a response unread on every stream, each with
 * a chunk of up to 256 KB and a header section that waits for its window: 40 MB in all.
 */
const mostSessionMegabytes = 64

/**
 * The limits in HTTP/2's words, and those of HTTP/1 on the same port, which Fastify then does not set. nghttp2 resets a
 * stream whose header section is over its own limits, without a response or a log line. Its limits are set so that no
 * header section within `limits.headers` is over them, whatever the number of its fields; what is larger is 431.
 */
function http2Options({ limits, timeouts }: Pick<Config['listen'], 'limits' | 'timeouts'>) {
  // The least that nghttp2 takes is below the default of 128.
  const most = Math.max(128, Math.ceil(limits.headers / SHORTEST_FIELD.http1))
  return {
    allowHTTP1: true,
    keepAliveTimeout: timeouts.keepAlive,
    requestTimeout: 0,
    maxHeaderListPairs: most,
    // Header section of a response; with nghttp2's own limit of 64 KB, a larger one would reset the stream.
    // `mesh.maxHeaderSize` is the limit for services.
    maxSendHeaderBlockLength: 2 ** 31 - 1,
    maxSessionMemory: mostSessionMegabytes,
    settings: { maxHeaderListSize: most * SHORTEST_FIELD.http2, maxConcurrentStreams: mostStreams }
  }
}
