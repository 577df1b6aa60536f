/** The gateway's span of each request, and the trace context for services. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { Either, strict } from '../../../../config/schema/kit.ts'
import { SampleRate } from '../../../../config/schema/tracing.ts'
import Type from '../../../../config/schema/type.ts'
import { parseTraceparent } from '../../../spans.ts'
import type { EdgeRoute } from '../../attach.ts'
import { edgeRouteOf, onUnroutedResponse } from '../../attach.ts'
import { edgeConcern } from '../../concern.ts'
import { onRefused } from '../../protocol/refusals.ts'
import { decorateTrace } from '../../request-trace.ts'
import { ServerSpan } from './span.ts'

const Options = Either(
  { type: 'boolean' },
  Type.Boolean(),
  Type.Object({ sampleRate: SampleRate('As `tracing.sampleRate`, for this route.') }, strict),
  {
    description:
      'Spans of requests and of their calls to services, with the top-level `tracing`. false: none, and the client’s trace context goes on unchanged.'
  }
)

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    tracing?: Static<typeof Options>
  }
}

export default edgeConcern({
  name: 'tracing',
  options: Options,
  default: true,
  needsSection: 'tracing',
  aliases: { 'opentelemetry|otel|observability': 'write the top-level tracing, and edge.tracing to switch it off' },
  protects: false,
  noShadow: 'it refuses no request',
  ownRoutes: 'always',
  check(_options, at, { data, report }) {
    if (data.tracing !== undefined || !report.usable('/tracing') || report.at(at) === undefined) return
    report.fault(at, 'needs the top-level "tracing", which is not set')
  },
  explain: (options) =>
    typeof options === 'object' ? `records ${Number((options.sampleRate * 100).toFixed(4))} % of new traces` : null,
  async plugin(fastify, { config: { edge, tracing } }) {
    if (tracing === undefined || !fastify.hasDecorator('spanRecorder')) return () => null
    const { spanRecorder } = fastify
    const { trustClient } = tracing
    const captured = tracing.capturedRequestHeaders.map((name) => name.toLowerCase())
    decorateTrace(fastify)

    const isBelieved = (request: FastifyRequest) =>
      trustClient === 'proxies' ? request.trusted || request.direction === 'east-west' : trustClient

    /** Begins the span of a request that arrived some milliseconds ago. */
    const begin = (request: FastifyRequest, isWanted: () => boolean, agoMs: number) => {
      const given = request.raw.headers.traceparent
      const client = given === undefined ? null : parseTraceparent(given)
      const continues = client !== null && isBelieved(request)
      request.gatewaySpan = new ServerSpan(
        request,
        continues ? client : null,
        continues ? null : client,
        isWanted,
        spanRecorder.now() - agoMs
      )
    }
    const samplerOf = (options: Static<typeof Options> | undefined) => {
      const rate = typeof options === 'object' ? options.sampleRate : tracing.sampleRate
      return () => Math.random() < rate
    }

    const samplers = new WeakMap<EdgeRoute, () => boolean>()
    const { tracing: ofGateway } = edge
    const isUnroutedWanted = ofGateway === undefined || ofGateway === false ? null : samplerOf(ofGateway)
    // A hook for all requests, not of routes: it must run before such hooks of plugins, which may make calls.
    fastify.addHook('onRequest', (request, reply, done) => {
      const route = edgeRouteOf(request.routeOptions.config)
      const isWanted = route === undefined ? isUnroutedWanted : samplers.get(route)
      if (isWanted) begin(request, isWanted, reply.elapsedTime)
      done()
    })
    const end = (request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      if (request.gatewaySpan instanceof ServerSpan) request.gatewaySpan.end(spanRecorder, request, reply, captured)
      done()
    }
    onUnroutedResponse(fastify, end)
    if (isUnroutedWanted !== null) {
      onRefused(fastify.server, ({ status, ip, reason }) => {
        // Without a response there was no request.
        if (status === undefined) return
        new ServerSpan(null, null, null, isUnroutedWanted, spanRecorder.now()).refuse(spanRecorder, status, reason, ip)
      })
    }
    return (options, { config }) => {
      samplers.set(edgeRouteOf(config)!, samplerOf(options))
      return { onResponse: end }
    }
  }
})
