/** Builds the request that goes over the seam from the request of a client. */
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Readable } from 'node:stream'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { Config, RouteConfig } from '../../../config/schema.ts'
import { hopByHop } from '../../http-syntax.ts'
import type { CallerOptions, CallRoute, ServiceOrigin } from '../../seam.ts'
import { LoopDetected } from '../errors.ts'
import { appendForwarding, prefixSoFar, unbelievedHeaders } from '../protocol/forwarding-headers.ts'
import { announced, fieldsOf, nominated, notInTrailers, takesTrailers } from '../protocol/headers.ts'
import { Peers } from '../protocol/peers.ts'
import { Body, hasBody, hasUnknownLength } from '../protocol/request-body.ts'
import { targetPath } from '../protocol/target-path.ts'
import { HeaderTrust } from './header-trust.ts'
import { forwardedPrefix } from './location.ts'
import type { HeaderFilter } from './upstream-headers.ts'

declare module '../../seam.ts' {
  interface ClientRequest extends FastifyRequest {}
}

/** Rules for requests to one service, as a route gives them. */
export interface RequestRules {
  /** Virtual origin of the service. */
  readonly origin: ServiceOrigin
  /** Changes the request target; null where it stays as it is. */
  readonly rewrite: ((target: string) => string) | null
  /** Prefix that `rewrite` takes off the path, for `X-Forwarded-Prefix`. */
  readonly takenPrefix: string | null
  /** True if the service gets the host of its instance in place of the client's. */
  readonly ownHost: boolean
  /** Facts of the route that interceptors get. */
  readonly route: CallRoute
  /** The route's policy for the mesh. */
  readonly policy: RouteConfig['mesh'] | undefined
  /** Headers of which no client's copy goes on; complete once all routes are added. */
  isDropped: HeaderFilter | null
}

/** The rules for the header section alone. */
export type HeaderRules = Pick<RequestRules, 'takenPrefix' | 'ownHost' | 'isDropped'>

/** Returns the rules of a configured route. */
export function rulesOf(route: RouteConfig): RequestRules {
  return {
    origin: `http://${route.service}.mesh`,
    rewrite: targetPath(route),
    takenPrefix: forwardedPrefix(route),
    ownHost: route.edge.host === 'upstream',
    route: { name: route.name, config: route.config ?? {} },
    policy: Object.keys(route.mesh).length > 0 ? route.mesh : undefined,
    isDropped: null
  }
}

/** W3C Trace Context and Baggage. */
const traceContext = ['traceparent', 'tracestate', 'baggage']

/** Builds the requests to services for one gateway. */
export class UpstreamRequests {
  /** Whom the listeners trust. */
  readonly peers: Peers
  /** Headers that services trust. */
  readonly trust: HeaderTrust
  readonly #requestIdHeader: string
  // The same sets for all routes, of which there may be thousands.
  readonly #drop: ReadonlySet<string>
  readonly #dropAlsoCookies: ReadonlySet<string>
  readonly #dropInTrailers: ReadonlySet<string>
  readonly #pseudonym: string

  /** `pseudonym`: the name in `Via`. */
  constructor(config: Config, pseudonym: string) {
    this.#pseudonym = pseudonym
    this.peers = new Peers(config)
    this.trust = new HeaderTrust(config)
    this.#requestIdHeader = config.edge.requestId.header.toLowerCase()
    this.#drop = new Set([...hopByHop, ...unbelievedHeaders(config), this.#requestIdHeader, 'host', 'expect', 'via'])
    this.#dropAlsoCookies = new Set([...this.#drop, 'cookie'])
    this.#dropInTrailers = new Set([...this.#drop, ...notInTrailers])
  }

  /** Returns the dispatch options for a client's request. Throws JW_LOOP_DETECTED for one of this gateway's own. */
  options(request: FastifyRequest, rules: RequestRules): Dispatcher.DispatchOptions & CallerOptions {
    const { raw, upgrade } = request
    const { origin, rewrite, route, policy } = rules
    // Only chunks carry trailers, to the service as from the client.
    const mayTrail = upgrade === null && hasUnknownLength(raw)
    return {
      origin,
      path: rewrite === null ? raw.url! : rewrite(raw.url!),
      method: request.method as Dispatcher.HttpMethod,
      headers: this.headers(request, rules, mayTrail),
      body: upgrade === null ? bodyOf(request) : null,
      caller: request,
      request,
      route,
      ...(upgrade !== null && { upgrade: 'websocket' }),
      ...(mayTrail && { trailers: () => this.#trailers(request, rules) }),
      ...(policy && { mesh: policy })
    }
  }

  /** Returns the header section for the service as name, value, name, value. */
  headers(request: FastifyRequest, rules: RequestRules, mayTrail: boolean): string[] {
    const { raw } = request
    const { isDropped } = rules
    const { connection, trailer, te } = raw.headers
    const headers = this.#begin(raw, rules)
    const alsoDrop = nominated(connection)
    if (raw.httpVersionMajor === 1) copyHeaders(headers, raw.rawHeaders, this.#drop, alsoDrop, isDropped)
    else {
      copyHeaders(headers, raw.rawHeaders, this.#dropAlsoCookies, alsoDrop, isDropped)
      // HTTP/2 may bring several cookie fields; HTTP/1.1 has one for all (RFC 9113, 8.2.3).
      const { cookie } = raw.headers
      if (cookie !== undefined && !isDropped?.('cookie')) headers.push('cookie', cookie)
    }
    if (mayTrail && trailer !== undefined && !alsoDrop?.has('trailer')) {
      const isLeftOut = (name: string) => !goesOn(name, this.#dropInTrailers, alsoDrop, isDropped)
      for (const line of announced(trailer, isLeftOut)) headers.push('trailer', line)
    }
    if (takesTrailers(te)) headers.push('te', 'trailers')
    this.#complete(headers, request, rules.takenPrefix)
    return headers
  }

  /**
   * Returns the header section for the service, made from fields that a plugin has changed: those of the client, as Node
   * joins them, and fields of the plugin's own. Throws JW_LOOP_DETECTED for a request of this gateway's own.
   */
  rewritten(request: FastifyRequest, rules: HeaderRules, fields: IncomingHttpHeaders): IncomingHttpHeaders {
    const { raw } = request
    const headers = this.#begin(raw, rules)
    for (const name in fields) {
      const value = name === 'content-type' ? typeOf(raw, fields) : fields[name]
      if (value === undefined || !goesOn(name, this.#drop, null, rules.isDropped)) continue
      for (const each of [value].flat()) headers.push(name, each)
    }
    if (takesTrailers(raw.headers.te)) headers.push('te', 'trailers')
    this.#complete(headers, request, rules.takenPrefix)
    return fieldsOf(headers)
  }

  /**
   * Returns the fields of a call that a plugin makes on behalf of a request, as name, value, name, value: those that the
   * gateway adds, and the client's trace context. Throws JW_LOOP_DETECTED for a request of this gateway's own.
   */
  onBehalfOf(request: FastifyRequest): string[] {
    this.#refuseLoop(request.raw)
    const headers: string[] = []
    for (const name of traceContext) {
      const value = request.raw.headers[name]
      if (typeof value === 'string') headers.push(name, value)
    }
    this.#complete(headers, request, null)
    return headers
  }

  #begin(raw: IncomingMessage, { ownHost }: HeaderRules): string[] {
    this.#refuseLoop(raw)
    const { host, ':authority': authority } = raw.headers
    // Without one, each attempt's instance gets its own.
    return ownHost ? [] : ['host', (authority as string | undefined) ?? host ?? '']
  }

  #refuseLoop({ headers: { via } }: IncomingMessage): void {
    if (via?.includes(this.#pseudonym)) throw new LoopDetected()
  }

  /** Appends what the gateway says to the service. */
  #complete(headers: string[], request: FastifyRequest, takenPrefix: string | null): void {
    const { raw } = request
    const { via } = raw.headers
    headers.push(this.#requestIdHeader, request.id)
    headers.push('via', `${via === undefined ? '' : `${via}, `}${raw.httpVersion} ${this.#pseudonym}`)
    const believed = this.peers.believed(raw)
    appendForwarding(headers, raw, believed)
    const prefix = prefixSoFar(takenPrefix, raw, believed)
    if (prefix !== null) headers.push('x-forwarded-prefix', prefix)
    if (request.upstreamHeaders !== null) headers.push(...request.upstreamHeaders)
  }

  #trailers({ raw }: FastifyRequest, { isDropped }: RequestRules): string[] {
    return copyHeaders([], raw.rawTrailers, this.#dropInTrailers, nominated(raw.headers.connection), isDropped)
  }
}

/** Returns the body; none unless the message's framing announces one: undici would send an empty one in chunks. */
export function bodyOf({ raw, body }: Pick<FastifyRequest, 'raw' | 'body'>): Dispatcher.DispatchOptions['body'] {
  // undici's types leave out that it takes iterables.
  if (body === raw) return hasBody(raw) ? (new Body(raw) as AsyncIterable<Buffer> as Readable) : null
  return (body as Readable | undefined) ?? null
}

/** Copies the headers that go on to the service; repeated headers keep their order. */
function copyHeaders(
  to: string[],
  from: readonly string[],
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): string[] {
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i]!.toLowerCase()
    if (goesOn(name, drop, alsoDrop, isDropped)) to.push(name, from[i + 1]!)
  }
  return to
}

function goesOn(
  name: string,
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): boolean {
  const pseudo = name.charCodeAt(0) === 58 // HTTP/2's :method and the like
  if (pseudo || drop.has(name) || alsoDrop?.has(name) || isDropped?.(name)) return false
  return !(name.includes('_') && isDisguised(name, drop))
}

/** Many services read `x_forwarded_for` and `X-Forwarded-For` as one header. */
function isDisguised(name: string, drop: ReadonlySet<string>): boolean {
  const meant = name.replaceAll('_', '-')
  return drop.has(meant) || meant === 'content-length'
}

/** Returns the client's own `Content-Type`, if no plugin has changed it: Fastify gets another one where it could not read it. */
function typeOf(raw: IncomingMessage, fields: IncomingHttpHeaders): string | undefined {
  const type = fields['content-type']
  if (type !== raw.headers['content-type']) return type
  const at = raw.rawHeaders.findIndex((text, index) => index % 2 === 0 && text.toLowerCase() === 'content-type')
  return at === -1 ? undefined : raw.rawHeaders[at + 1]
}
