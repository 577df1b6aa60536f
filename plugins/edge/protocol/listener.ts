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
import { isHandshake, isResponding } from './handshake.ts'
import { inboundServerOptions } from './inbound/inbound-tls.ts'
import { Peers, trustedHops } from './peers.ts'
import { refusalFields, reportRefusal } from './refusals.ts'
import { listenerTlsOf } from './tls/index.ts'
import { refuseUnparsable } from './unparsable.ts'

const BadEscape = createError('JW_BAD_TARGET', 'The path has a % without two hexadecimal digits after it', 400)

/** Milliseconds for adding one route, also on a slow or busy machine. */
const ROUTE_MS = 10

/** Returns the options of Fastify's constructor for a server that is the first listener. */
export function serverOptions(config: Config): FastifyServerOptions {
  return { ...gatewayOptions(config), ...socketOptions(config.listen) } as FastifyServerOptions
}

/** Returns the Fastify options that apply to all listeners. */
export function gatewayOptions(config: Config): FastifyServerOptions {
  const { listeners, edge, routes } = config
  const peers = new Peers(config)
  return {
    // For `request.ip`, which Fastify takes from X-Forwarded-For.
    trustProxy: trustedHops(config) as NonNullable<FastifyServerOptions['trustProxy']>,
    // Fastify's default, plus time for adding the routes, which happens in slices.
    pluginTimeout: 10_000 + routes.length * ROUTE_MS,
    // While draining, requests on open connections are served, with `Connection: close`.
    return503OnClosing: false,
    // The access log writes the line of a request; all lines name its id `requestId`.
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    clientErrorHandler(this: FastifyInstance, error: Error, socket: Socket) {
      refuseUnparsable(this.server, error, socket)
    },
    rewriteUrl: toOriginForm as FastifyServerOptions['rewriteUrl'],
    // A path that the router cannot decode fails before any hook runs.
    frameworkErrors: (error, request, reply) => {
      peers.removeUntrusted(request.raw)
      reply.header(edge.requestId.header.toLowerCase(), request.id)
      // Escaped octets that are not UTF-8 are valid (RFC 3986, 2.5): the path just matches no route.
      const isUnreadable = readPath(request.raw.url!) === null
      const own = error.code === 'FST_ERR_BAD_URL' ? new (isUnreadable ? BadEscape : NotFound)() : error
      const { id: requestId, ip, raw, server } = request
      for (const [name, value] of refusalFields(server.server, request.protocol === 'https')) reply.header(name, value)
      respond(own, request, reply)
      const from = { requestId, ip, listener: listenerNameOf(raw) }
      reportRefusal(server.server, { reason: 'bad-path', status: reply.statusCode, ...from })
    },
    routerOptions: {
      // `//admin` must get the rules of `/admin`, since services often merge slashes.
      ignoreDuplicateSlashes: true,
      maxParamLength: Math.max(...listeners.map(({ limits }) => limits.url))
    }
  }
}

/** Returns the options of a listening server: limits of its sockets, TLS. */
export function socketOptions({ name, tls, connect, http2, limits, timeouts }: Config['listen']) {
  const common = {
    keepAliveTimeout: timeouts.keepAlive,
    // No limit for a whole request: `body-timeout` limits bodies.
    requestTimeout: 0
  }
  const http = {
    maxHeaderSize: limits.headers,
    headersTimeout: timeouts.headers,
    // Node's default of 5 minutes would limit `headersTimeout`.
    requestTimeout: 0,
    // Interval in which Node enforces `headersTimeout`; the default of 30 s would be too coarse.
    connectionsCheckingInterval: 1000,
    // Saves the stream events of requests without a body.
    optimizeEmptyRequests: true,
    // A request with any other `Upgrade` is an ordinary request.
    shouldUpgradeCallback: (request: IncomingMessage) => isHandshake(request) && !isResponding(request)
  }
  if (tls === undefined && connect === undefined) return { ...common, http }
  const https = {
    ...http,
    ...(tls === undefined ? inboundServerOptions({ http2 }) : listenerTlsOf(name, tls).serverOptions()),
    handshakeTimeout: timeouts.headers,
    ...(http2 && http2Options({ limits, timeouts }))
  }
  // No session timeout of Node: `http2-sessions` goes by open streams, not by bytes.
  return { ...common, https, ...(http2 && { http2: true, http2SessionTimeout: 0 }) }
}

/** Bytes of the shortest field, of one character, in HTTP/1.1 and as HTTP/2 counts it (RFC 9113, 6.5.2). */
const SHORTEST_FIELD = { http1: 5, http2: 33 }

const maxStreams = 128
/**
 * Memory of a session above which Node refuses new streams, before any hook. A client may leave a response unread on every
 * stream, each with a chunk of up to 256 KB and a header section: 40 MB in total.
 */
const maxSessionMegabytes = 64

/**
 * Returns the HTTP/2 options for the configured limits, and the HTTP/1.1 options for the same port, which Fastify does not
 * set then. nghttp2 resets a stream whose header section exceeds its own limits, without a response or a log line. So its
 * limits admit every header section within `limits.headers`, whatever the number of its fields; larger ones get 431.
 */
function http2Options({ limits, timeouts }: Pick<Config['listen'], 'limits' | 'timeouts'>) {
  // At least 128 fields, the default.
  const most = Math.max(128, Math.ceil(limits.headers / SHORTEST_FIELD.http1))
  return {
    allowHTTP1: true,
    keepAliveTimeout: timeouts.keepAlive,
    requestTimeout: 0,
    maxHeaderListPairs: most,
    // Responses: nghttp2's limit of 64 KB would reset the stream. `mesh.maxHeaderSize` limits services.
    maxSendHeaderBlockLength: 2 ** 31 - 1,
    maxSessionMemory: maxSessionMegabytes,
    settings: { maxHeaderListSize: most * SHORTEST_FIELD.http2, maxConcurrentStreams: maxStreams }
  }
}
