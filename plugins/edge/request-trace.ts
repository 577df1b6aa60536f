/** The trace to which a request belongs. A concern sets it; the bridge passes it on to services, and the access log shows it. */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { SpanContext } from '../spans.ts'
import { isSampled, parseTraceparent } from '../spans.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The gateway's span of the request; null if the gateway makes none, so that the client's headers go on. */
    gatewaySpan: RequestTrace | null
  }
}

export interface RequestTrace extends SpanContext {
  /** For services. */
  readonly traceparent: string
  /** Names of the client's headers that it replaces. */
  readonly replaced: ReadonlySet<string>
}

export function decorateTrace(fastify: FastifyInstance): void {
  if (!fastify.hasRequestDecorator('gatewaySpan')) fastify.decorateRequest('gatewaySpan', null)
}

/** Returns the parent of the spans of calls to services; undefined if they have none. */
export const parentOf = ({ gatewaySpan: span }: FastifyRequest): SpanContext | undefined =>
  span && isSampled(span) ? span : undefined

/** Returns the options of a call that is made on behalf of a request. */
export const callerOf = (request: FastifyRequest) => ({ caller: request, request, trace: parentOf(request) })

/** For sidecars: the caller's span, which a header names; undefined if its trace is not recorded. */
export function parentFrom(traceparent: unknown): SpanContext | undefined {
  const given = parseTraceparent(traceparent)
  return given !== null && isSampled(given) ? given : undefined
}
