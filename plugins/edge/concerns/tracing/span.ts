/** The gateway's span of one request, by OpenTelemetry's conventions for servers. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { FinishedSpan, SpanContext, SpanRecorder } from '../../../spans.ts'
import { bounded, isSampled, methodOf, newSpanId, newTrace, traceparentOf } from '../../../spans.ts'
import { edgeRouteOf } from '../../attach.ts'
import { clientAddressOf } from '../../protocol/client-address.ts'
import type { RequestTrace } from '../../request-trace.ts'

const traceparent: ReadonlySet<string> = new Set(['traceparent'])
const traceparentAndState: ReadonlySet<string> = new Set(['traceparent', 'tracestate'])

export class ServerSpan implements RequestTrace {
  readonly traceId: string
  readonly spanId: string
  readonly flags: number
  readonly traceparent: string
  readonly replaced: ReadonlySet<string>
  readonly #startMs: number
  readonly #parentId: string | null
  readonly #link: SpanContext | null
  readonly #server: FinishedSpan['attributes']

  /** `continued`: the client's span, if it is believed; `link`: if it is not. `isWanted` decides on the sampling of a new trace. */
  constructor(
    request: FastifyRequest | null,
    continued: SpanContext | null,
    link: SpanContext | null,
    isWanted: () => boolean,
    startMs: number
  ) {
    const { traceId, spanId, flags } = continued === null ? newTrace(isWanted()) : { ...continued, spanId: newSpanId() }
    this.traceId = traceId
    this.spanId = spanId
    this.flags = flags
    this.traceparent = traceparentOf(this)
    // Without its parent, the client's state has no meaning (W3C Trace Context, 4.3).
    this.replaced = continued === null ? traceparentAndState : traceparent
    this.#startMs = startMs
    this.#parentId = continued === null ? null : continued.spanId
    this.#link = link
    // On arrival: a socket of HTTP/2 is unknown once the response has ended.
    this.#server = request !== null && isSampled(this) ? serverOf(request) : []
  }

  /** Records the span when the response has ended. `captured`: headers whose values are attributes, in lower case. */
  end(spanRecorder: SpanRecorder, request: FastifyRequest, reply: FastifyReply, captured: readonly string[]): void {
    if (!isSampled(this)) return
    const { raw, failure } = request
    const { config, url } = request.routeOptions
    const status = reply.statusCode
    const named = methodOf(request.method)
    const route = config.matchedPath?.text ?? (edgeRouteOf(config) === undefined ? undefined : url)
    const isError = status >= 500 || (failure !== null && status < 400)
    this.#record(spanRecorder, {
      name: route === undefined ? named.name : `${named.name} ${route}`,
      isError,
      attributes: [
        ...named.attributes,
        ['url.path', bounded(pathOf(raw.url!))],
        ...this.#server,
        ['http.route', route],
        ['jingwei.route', edgeRouteOf(config)?.name],
        ['http.response.status_code', status],
        ['error.type', failure ?? (isError ? String(status) : undefined)],
        ['client.address', clientAddressOf(request) || undefined],
        ['user_agent.original', textOf(raw.headers['user-agent'])],
        ['network.protocol.version', raw.httpVersionMajor === 2 ? '2' : raw.httpVersion],
        ...captured.map((name) => attributeOf(name, raw.headers[name]))
      ]
    })
  }

  /** Records the span of a request that was refused before its header section had been read, so that little is known of it. */
  refuse(spanRecorder: SpanRecorder, status: number, reason: string, ip: string | undefined): void {
    if (!isSampled(this)) return
    this.#record(spanRecorder, {
      name: 'HTTP',
      isError: status >= 500,
      attributes: [
        ['http.request.method', '_OTHER'],
        ['http.response.status_code', status],
        ['error.type', reason],
        ['client.address', ip]
      ]
    })
  }

  #record(spanRecorder: SpanRecorder, more: Pick<FinishedSpan, 'name' | 'attributes' | 'isError'>): void {
    const { traceId, spanId, flags } = this
    spanRecorder.record({
      traceId,
      spanId,
      flags,
      parent: this.#parentId === null ? null : { spanId: this.#parentId, isRemote: true },
      kind: 'server',
      startMs: this.#startMs,
      endMs: Math.max(this.#startMs, spanRecorder.now()),
      link: this.#link,
      ...more
    })
  }
}

/** Returns the path of a request target, without its query and without the authority of a target in absolute form. */
function pathOf(target: string): string {
  const mark = target.indexOf('?')
  const path = mark === -1 ? target : target.slice(0, mark)
  if (path.startsWith('/') || path === '*') return path
  const slash = path.indexOf('/', path.indexOf('//') + 2)
  return slash === -1 ? '/' : path.slice(slash)
}

/** Returns the attributes of the server that the client has called. */
function serverOf(request: FastifyRequest): FinishedSpan['attributes'] {
  const { protocol, hostname, port } = request
  return [
    ['url.scheme', protocol],
    ['server.address', hostname ? bounded(hostname) : undefined],
    ['server.port', Number.isInteger(port) ? (port ?? undefined) : undefined]
  ]
}

const textOf = (value: string | undefined) => (value === undefined ? undefined : bounded(value))

/** Returns the attribute of a header of the request. */
function attributeOf(name: string, value: string | readonly string[] | undefined): FinishedSpan['attributes'][number] {
  // Names such as `constructor` have a value in every object.
  const values = typeof value === 'string' || Array.isArray(value) ? [value].flat().map(bounded) : undefined
  return [`http.request.header.${name}`, values]
}
