/** Builds the request to a service from the request of a client. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { PathPattern } from '../../../config/path-pattern.ts'
import type { PathReadings } from '../../../config/path-reading.ts'
import type { Config, EdgePolicy, RouteConfig } from '../../../config/schema.ts'
import { hopByHop } from '../../http-syntax.ts'
import type { CallerOptions, CallRoute, ServiceOrigin } from '../../seam.ts'
import { LoopDetected } from '../errors.ts'
import { appendForwarding, forwardingOnlyHeaders, strippedPrefix } from '../protocol/forwarding-headers.ts'
import { announced, fieldsOf, nominated, notInTrailers, takesTrailers } from '../protocol/headers.ts'
import { Peers } from '../protocol/peers.ts'
import { Body, hasBody, hasUnknownLength } from '../protocol/request-body.ts'
import type { Rewrite } from '../protocol/target-path.ts'
import { targetPath } from '../protocol/target-path.ts'
import { parentFrom, parentOf } from '../request-trace.ts'
import { handedOver } from './handed-over.ts'
import { HeaderTrust } from './header-trust.ts'
import type { StrippedPrefix } from './location.ts'
import { forwardedPrefix } from './location.ts'
import type { HeaderFilter } from './upstream-headers.ts'

declare module '../../seam.ts' {
  interface ClientRequest extends FastifyRequest {}
}

/** Rules of a route for the requests to its service. */
export interface RequestRules {
  /** Virtual origin of the service. */
  readonly origin: ServiceOrigin
  /** Changes the request target; null if it is passed on unchanged. */
  readonly rewrite: Rewrite | null
  /** Prefix that `rewrite` strips, for `X-Forwarded-Prefix`. */
  readonly strippedPrefix: StrippedPrefix
  /** `Host` for the service; null for that of the instance, undefined for the client's. */
  readonly host: string | null | undefined
  /** Route facts for interceptors. */
  readonly route: CallRoute
  /** The route's policy for the mesh. */
  readonly policy: RouteConfig['mesh'] | undefined
  /** Test for headers that are removed from clients' requests; complete once all routes are added. */
  isDropped: HeaderFilter | null
  /** True if the gateway adds none of its own fields, and removes only those of the connection. */
  readonly isTransparent: boolean
  /** True if a gateway hands the request over to this sidecar. */
  readonly isHandedOver: boolean
}

/** The rules for the header section only. */
export type HeaderRules = Pick<RequestRules, 'strippedPrefix' | 'host' | 'isDropped' | 'isTransparent'>

/** Returns the rules of a configured route for paths of one of its patterns. */
export function rulesOf(route: RouteConfig, pattern: PathPattern, paths: PathReadings): RequestRules {
  return {
    origin: `http://${route.service}.mesh`,
    rewrite: targetPath(route, pattern, paths),
    strippedPrefix: forwardedPrefix(route, pattern),
    host: hostFor(route.edge),
    route: { name: route.name, config: route.config ?? {} },
    policy: Object.keys(route.mesh).length > 0 ? route.mesh : undefined,
    isDropped: null,
    isTransparent: route.isTransparent === true,
    isHandedOver: route.isHandedOver === true
  }
}

/** Returns the `Host` for services by the key `edge.host`; null for that of the instance, undefined for the client's. */
export function hostFor({ host = 'preserve' }: Pick<EdgePolicy, 'host'>): string | null | undefined {
  return host === 'upstream' ? null : host === 'preserve' ? undefined : host
}

/** Headers of W3C Trace Context and Baggage. */
const traceContext = ['traceparent', 'tracestate', 'baggage']

/** Headers of the connection, which a transparent route removes. */
const ofConnection: ReadonlySet<string> = new Set([...hopByHop, 'host', 'expect'])
const ofConnectionAlsoCookies: ReadonlySet<string> = new Set([...ofConnection, 'cookie'])
const ofConnectionInTrailers: ReadonlySet<string> = new Set([...ofConnection, ...notInTrailers])

/** Builds the requests to services for one gateway. */
export class UpstreamRequests {
  /** Trust rules of the listeners. */
  readonly peers: Peers
  /** Headers that services trust, so that clients' copies are removed. */
  readonly trust: HeaderTrust
  readonly #requestIdHeader: string
  // Shared by all routes, of which there may be thousands.
  readonly #drop: ReadonlySet<string>
  readonly #dropAlsoCookies: ReadonlySet<string>
  readonly #dropInTrailers: ReadonlySet<string>
  readonly #pseudonym: string
  /** True if calls continue the traces of callers: in a sidecar. */
  readonly #continuesTraces: boolean

  /** `pseudonym`: the gateway's name in `Via`. */
  constructor(config: Config, pseudonym: string) {
    this.#pseudonym = pseudonym
    this.#continuesTraces = config.isSidecar === true && config.tracing !== undefined
    this.peers = new Peers(config)
    this.trust = new HeaderTrust(config)
    this.#requestIdHeader = config.edge.requestId.header.toLowerCase()
    this.#drop = new Set([
      ...hopByHop,
      ...forwardingOnlyHeaders(config),
      this.#requestIdHeader,
      'host',
      'expect',
      'via'
    ])
    this.#dropAlsoCookies = new Set([...this.#drop, 'cookie'])
    this.#dropInTrailers = new Set([...this.#drop, ...notInTrailers])
  }

  /** Returns the dispatch options for a client's request. Throws JW_LOOP_DETECTED if this gateway sent the request. */
  options(request: FastifyRequest, rules: RequestRules): Dispatcher.DispatchOptions & CallerOptions {
    const { raw, upgrade } = request
    const { origin, rewrite, route, policy } = rules
    // Trailers need a chunked body, from the client and to the service.
    const mayTrail = upgrade === null && hasUnknownLength(raw)
    const handed = rules.isHandedOver ? handedOver(raw.headers, request.id) : null
    const continues = this.#continuesTraces && handed?.isTraced !== false
    const trace = continues ? parentFrom(raw.headers.traceparent) : parentOf(request)
    return {
      origin,
      path: rewrite === null ? raw.url! : rewrite(raw.url!),
      method: request.method as Dispatcher.HttpMethod,
      headers: this.headers(request, handed?.hasHost === false ? { ...rules, host: null } : rules, mayTrail),
      body: upgrade === null ? bodyOf(request) : null,
      caller: handed ?? request,
      request,
      route,
      ...(upgrade !== null && { upgrade: 'websocket' }),
      ...(mayTrail && { trailers: () => this.#trailers(request, rules) }),
      ...(policy && { mesh: policy }),
      ...(trace && { trace })
    }
  }

  /** Returns the header section for the service as name, value, name, value. */
  headers(request: FastifyRequest, rules: HeaderRules, mayTrail: boolean): string[] {
    const { raw } = request
    const { isDropped, isTransparent } = rules
    const { connection, trailer, te } = raw.headers
    const headers = this.#hostField(raw, rules)
    const alsoDrop = both(nominated(connection), notPassed(request))
    if (raw.httpVersionMajor === 1)
      copyHeaders(headers, raw.rawHeaders, isTransparent ? ofConnection : this.#drop, alsoDrop, isDropped)
    else {
      const drop = isTransparent ? ofConnectionAlsoCookies : this.#dropAlsoCookies
      copyHeaders(headers, raw.rawHeaders, drop, alsoDrop, isDropped)
      // HTTP/2 may have several cookie fields; HTTP/1.1 has one (RFC 9113, 8.2.3).
      const { cookie } = raw.headers
      if (cookie !== undefined && !isDropped?.('cookie') && !alsoDrop?.has('cookie')) headers.push('cookie', cookie)
    }
    if (mayTrail && trailer !== undefined && !alsoDrop?.has('trailer')) {
      const isLeftOut = trailerFilter(request, isDropped)
      const isOmitted = (name: string) => !isPassedOn(name, this.#droppedInTrailers(rules), alsoDrop, isLeftOut)
      for (const line of announced(trailer, isOmitted)) headers.push('trailer', line)
    }
    if (takesTrailers(te)) headers.push('te', 'trailers')
    if (!isTransparent) this.#appendOwn(headers, request, rules.strippedPrefix)
    else if (request.upstreamHeaders !== null) headers.push(...request.upstreamHeaders)
    return headers
  }

  #droppedInTrailers({ isTransparent }: HeaderRules): ReadonlySet<string> {
    return isTransparent ? ofConnectionInTrailers : this.#dropInTrailers
  }

  /**
   * Returns the header section for the service, made from fields that a plugin has changed: the client's, as Node joins
   * them, and the plugin's own. Throws JW_LOOP_DETECTED if this gateway sent the request.
   */
  rewritten(request: FastifyRequest, rules: HeaderRules, fields: IncomingHttpHeaders): IncomingHttpHeaders {
    const { raw } = request
    const headers = this.#hostField(raw, rules)
    const replaced = request.gatewaySpan?.replaced ?? null
    for (const name in fields) {
      const value = name === 'content-type' ? typeOf(raw, fields) : fields[name]
      if (value === undefined || !isPassedOn(name, this.#drop, replaced, rules.isDropped)) continue
      for (const each of [value].flat()) headers.push(name, each)
    }
    if (takesTrailers(raw.headers.te)) headers.push('te', 'trailers')
    this.#appendOwn(headers, request, rules.strippedPrefix)
    return fieldsOf(headers)
  }

  /**
   * Returns the fields of a call that a plugin makes on behalf of a request, as name, value, name, value: those that the
   * gateway adds, and the client's trace context. Throws JW_LOOP_DETECTED if this gateway sent the request.
   */
  onBehalfOf(request: FastifyRequest): string[] {
    this.#refuseLoop(request.raw)
    const headers: string[] = []
    for (const name of traceContext) {
      const value = request.raw.headers[name]
      if (typeof value === 'string' && !request.gatewaySpan?.replaced.has(name)) headers.push(name, value)
    }
    this.#appendOwn(headers, request, null)
    return headers
  }

  #hostField(raw: IncomingMessage, { host: fixed, isTransparent }: HeaderRules): string[] {
    if (!isTransparent) this.#refuseLoop(raw)
    const { host, ':authority': authority } = raw.headers
    // Without `Host`, the mesh sets that of the instance for each attempt.
    return fixed === null ? [] : ['host', fixed ?? (authority as string | undefined) ?? host ?? '']
  }

  #refuseLoop({ headers: { via } }: IncomingMessage): void {
    if (via?.includes(this.#pseudonym)) throw new LoopDetected()
  }

  /** Appends the gateway's own fields for the service. */
  #appendOwn(headers: string[], request: FastifyRequest, ownPrefix: StrippedPrefix): void {
    const { raw } = request
    const own = typeof ownPrefix === 'function' ? ownPrefix(raw.url!) : ownPrefix
    const { via } = raw.headers
    headers.push(this.#requestIdHeader, request.id)
    const { gatewaySpan, removedHeaders } = request
    if (gatewaySpan !== null && !removedHeaders?.has('traceparent'))
      headers.push('traceparent', gatewaySpan.traceparent)
    headers.push('via', `${via === undefined ? '' : `${via}, `}${raw.httpVersion} ${this.#pseudonym}`)
    const trusted = this.peers.trustedHeadersOf(raw)
    appendForwarding(headers, raw, trusted)
    const prefix = strippedPrefix(own, raw, trusted)
    if (prefix !== null) headers.push('x-forwarded-prefix', prefix)
    if (request.upstreamHeaders !== null) headers.push(...request.upstreamHeaders)
  }

  #trailers(request: FastifyRequest, rules: RequestRules): string[] {
    const { raw } = request
    const dropped = this.#droppedInTrailers(rules)
    const alsoDrop = both(nominated(raw.headers.connection), notPassed(request))
    return copyHeaders([], raw.rawTrailers, dropped, alsoDrop, trailerFilter(request, rules.isDropped))
  }
}

type Fields = ReadonlySet<string> | null

const both = (a: Fields, b: Fields): Fields => (a === null || b === null ? (a ?? b) : a.union(b))

/** Returns the test for fields of the trailer section that are removed. */
function trailerFilter({ isRemovedTrailer }: FastifyRequest, isDropped: HeaderFilter | null): HeaderFilter | null {
  if (isRemovedTrailer === null || isDropped === null) return isRemovedTrailer ?? isDropped
  return (name) => isRemovedTrailer(name) || isDropped(name)
}

/** Returns the names of the client's fields that do not reach the service. */
const notPassed = ({ removedHeaders, gatewaySpan }: FastifyRequest): Fields =>
  both(removedHeaders, gatewaySpan === null ? null : gatewaySpan.replaced)

/** Returns the body; null unless the framing announces one: undici would send an empty chunked body. */
export function bodyOf({ raw, body }: Pick<FastifyRequest, 'raw' | 'body'>): Dispatcher.DispatchOptions['body'] {
  // undici accepts iterables, but its types omit that.
  if (body === raw) return hasBody(raw) ? (new Body(raw) as AsyncIterable<Buffer> as Readable) : null
  return (body as Readable | undefined) ?? null
}

/** Copies the headers that are passed on to the service; repeated headers keep their order. */
function copyHeaders(
  to: string[],
  from: readonly string[],
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): string[] {
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i]!.toLowerCase()
    if (isPassedOn(name, drop, alsoDrop, isDropped)) to.push(name, from[i + 1]!)
  }
  return to
}

function isPassedOn(
  name: string,
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): boolean {
  const pseudo = name.charCodeAt(0) === 58 // HTTP/2's :method and the like
  if (pseudo || drop.has(name) || alsoDrop?.has(name) || isDropped?.(name)) return false
  return !(name.includes('_') && isDisguised(name, drop))
}

/** Returns whether a name with `_` stands for a dropped header: many services read `x_forwarded_for` as `X-Forwarded-For`. */
function isDisguised(name: string, drop: ReadonlySet<string>): boolean {
  const meant = name.replaceAll('_', '-')
  return drop.has(meant) || meant === 'content-length'
}

/** Returns the client's `Content-Type` unless a plugin has changed it; `acceptAnyType` may have replaced it for Fastify. */
function typeOf(raw: IncomingMessage, fields: IncomingHttpHeaders): string | undefined {
  const type = fields['content-type']
  if (type !== raw.headers['content-type']) return type
  const at = raw.rawHeaders.findIndex((text, index) => index % 2 === 0 && text.toLowerCase() === 'content-type')
  return at === -1 ? undefined : raw.rawHeaders[at + 1]
}
