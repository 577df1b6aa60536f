import type { Key, RouteConfigKeys } from '../../config/concern.ts'
import accessLog from './access-log.ts'
import { reservedRouteConfig } from './attach.ts'
import { bridgeKeys, bridgeRouteConfig } from './bridge/options.ts'
import { composeEdge } from './compose.ts'
import type { EdgeConcern } from './concern.ts'
import { globalConcern } from './concern.ts'
import acl from './concerns/acl/index.ts'
import apiVersion from './concerns/api-version.ts'
import authentication from './concerns/authentication/index.ts'
import authorization from './concerns/authorization/index.ts'
import authorizer from './concerns/authorizer/index.ts'
import basicAuth from './concerns/basic-auth/index.ts'
import body from './concerns/body/index.ts'
import bodyLimit from './concerns/body-limit.ts'
import bodyTimeout from './concerns/body-timeout.ts'
import cache from './concerns/cache/index.ts'
import compression from './concerns/compression/index.ts'
import cookies from './concerns/cookies/index.ts'
import cors from './concerns/cors/index.ts'
import csrf from './concerns/csrf.ts'
import decompression from './concerns/decompression/index.ts'
import deprecation from './concerns/deprecation.ts'
import earlyHints from './concerns/early-hints.ts'
import errorPages from './concerns/error-pages/index.ts'
import forwardAuth from './concerns/forward-auth/index.ts'
import forwardClientCert from './concerns/forward-client-cert.ts'
import graphql from './concerns/graphql/index.ts'
import headers from './concerns/headers/index.ts'
import hmacAuth from './concerns/hmac-auth/index.ts'
import introspection from './concerns/introspection/index.ts'
import ipFilter from './concerns/ip-filter/index.ts'
import jwt from './concerns/jwt/index.ts'
import keyAuth from './concerns/key-auth/index.ts'
import maintenance from './concerns/maintenance/index.ts'
import maxForwards from './concerns/max-forwards.ts'
import messageSignature from './concerns/message-signature/index.ts'
import mtlsAuth from './concerns/mtls-auth/index.ts'
import oidc from './concerns/oidc/index.ts'
import overload from './concerns/overload/index.ts'
import query from './concerns/query/index.ts'
import rateLimit from './concerns/rate-limit/index.ts'
import securityHeaders from './concerns/security-headers/index.ts'
import tracing from './concerns/tracing/index.ts'
import uma from './concerns/uma/index.ts'
import userAgent from './concerns/user-agent.ts'
import validation from './concerns/validation/index.ts'
import { metricsKeys } from './consumers/metrics.ts'
import errors from './errors.ts'
import metrics from './metrics.ts'
import { EdgeOrder } from './order.ts'
import clientGone from './protocol/client-gone.ts'
import clientLimits from './protocol/client-limits.ts'
import inbound, { servesCallers } from './protocol/inbound/index.ts'
import pipelining from './protocol/pipelining.ts'
import redirect from './protocol/redirect.ts'
import requestId from './protocol/request-id.ts'
import requestTarget from './protocol/request-target.ts'
import { asksForCertificates } from './protocol/tls/client-rules.ts'
import tls from './protocol/tls/index.ts'
import websocket from './protocol/websocket/index.ts'

/** Reason of most concerns that have no shadow mode. */
const refusesNothing = 'it refuses no request'

/**
 * The edge's concerns, in the order in which a request passes them. To add a concern, add its file and a line here; to
 * remove one, delete both. The bridge runs after all concerns and after the hooks of users' plugins.
 */
export const concerns: readonly EdgeConcern[] = [
  globalConcern('errors', errors, { noShadow: refusesNothing }), // first: every later failure gets a response from the error table
  requestId, // before any concern that logs
  globalConcern('client-gone', clientGone, { noShadow: refusesNothing }), // from here on the client may disconnect at any moment
  tracing, // before the access log, whose lines name the span
  accessLog, // before the concerns that refuse requests, so that refusals are logged
  globalConcern('metrics', metrics, { keys: metricsKeys, noShadow: refusesNothing }), // as the access log: refusals are counted
  overload, // before any work that needs a file descriptor
  globalConcern('pipelining', pipelining, { noShadow: refusesNothing }), // before any work for a request that has to wait
  globalConcern('mesh-caller', inbound, { isOn: servesCallers, noShadow: 'the mesh decides who may call' }), // before the limits: a refused caller uses none of them
  globalConcern('client-limits', clientLimits, {
    noShadow: 'limits of a listener; rateLimit counts addresses in shadow mode'
  }), // after pipelining: a waiting request does not count as in flight
  globalConcern('request-target', requestTarget, { noShadow: 'services could read the refused targets in other ways' }), // before any rule that depends on the path
  globalConcern('to-https', redirect, { noShadow: refusesNothing }), // before the concerns of routes: a redirect needs none of them
  globalConcern('client-certificate', tls, { isOn: asksForCertificates, noShadow: 'it is a rule of TLS handshakes' }), // after request-target: its rule depends on a valid host
  errorPages, // before the concerns that refuse requests; its pages are rendered by the error table
  deprecation, // before the concerns that may refuse: their responses tell of it, too
  apiVersion, // as deprecation: refused requests are counted, too
  bodyTimeout, // early: its time starts with the header section
  ipFilter, // before authentication and rate limits: a refused address costs neither; also for preflights
  userAgent, // as ipFilter
  cors, // before rate limit and JWT: preflights carry no credentials and are not counted
  csrf, // as cors: before authentication, which forged requests would pass
  maintenance, // after cors, so that pages can read the response; before all that costs more
  rateLimit, // before authentication, to save its cost; a limit by consumer runs after it
  mtlsAuth, // the methods of authentication, in the order in which they are tried; a certificate needs no header
  keyAuth, // after certificates, which cannot be guessed
  hmacAuth, // after keys: it may read the body
  messageSignature, // as hmacAuth
  basicAuth, // after keys, which cost less
  jwt, // after keys: most plugins that need the consumer have their position after it
  introspection, // after JWT, which needs no call
  authorizer, // after the other methods with credentials: its function may take any time
  oidc, // last of the methods: without any credentials it redirects to a login
  forwardAuth, // after JWT, whose claims it may send; its consumer replaces that of the methods
  authentication, // after the methods: tells the service who the consumer is
  forwardClientCert, // as authentication
  acl, // after authentication: it needs the consumer
  authorization, // as acl
  uma, // after the rules that take no call
  securityHeaders, // before the rules for headers, which may change these
  headers, // after authentication: templates see the caller; after the rules, which see the headers of the client
  query, // after headers, whose templates refer to the query of the client
  cookies, // as query
  websocket, // after JWT: unauthenticated clients do not learn whether a route takes WebSockets
  globalConcern('max-forwards', maxForwards, { noShadow: refusesNothing }), // after authentication: it responds in place of the service
  bodyLimit, // after all concerns that do not read the body
  decompression, // after bodyLimit, which counts the client's bytes; before those that read the body
  validation, // after bodyLimit: it reads the body
  graphql, // as validation
  body, // after validation and graphql, which check what the client has sent and what the service has sent
  cache, // after all that may refuse a request or add a header for the service; it intercepts the calls of the bridge
  earlyHints, // after all concerns that may refuse the request
  compression // last: it encodes what all other concerns have made of the response
]

/** Subcommands that concerns add to the command line. */
export const commands = concerns.flatMap((concern) => concern.commands ?? [])

/** The keys of `edge`. */
export const edgeKeys: readonly Key[] = [...concerns.flatMap(({ keys }) => keys), ...bridgeKeys]

/** Keys of the concerns that plugins can name in `order`. */
export const edgePositions: readonly string[] = new EdgeOrder(concerns).names

/** The keys of `routes[].config` that the edge reads, and names that plugins cannot use. */
export const edgeRouteConfig: RouteConfigKeys = {
  schemas: new Map(Object.entries(bridgeRouteConfig)),
  reserved: new Map(Object.entries(reservedRouteConfig)),
  plugins: null
}

export default composeEdge('jingwei-edge', concerns)
