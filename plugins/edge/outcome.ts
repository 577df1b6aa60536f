/** Facts of a response for the access log: when it leaves, and by whose decision. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { SeamError, SeamReason } from '../seam.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** True if the times of the request are wanted: reading the clock is left out otherwise. */
    isTimed: boolean
    /** Milliseconds from the request to the header section of its final response; null before, or if it is not timed. */
    firstByteMs: number | null
    /** Reason of a refusal that its code leaves open: a word from a short list, never a part of the request. */
    refusalReason: string | null
    /** True if a concern of the gateway responds by itself, and not with an error. */
    isOwnResponse: boolean
  }
}

export function decorateOutcome(fastify: FastifyInstance): void {
  fastify.decorateRequest('isTimed', false)
  fastify.decorateRequest('firstByteMs', null)
  fastify.decorateRequest('refusalReason', null)
  fastify.decorateRequest('isOwnResponse', false)
}

/** Has each reason of the mesh, which the compiler checks. */
export const seamReasons: Readonly<Record<SeamReason, true>> = {
  instances_unknown: true,
  instances_none: true,
  instances_unavailable: true,
  overload_requests: true,
  overload_pending: true,
  overload_instances: true,
  overload_adaptive: true,
  circuit_open: true,
  circuit_half_open: true
}

/** Notes the reason that an error has brought over the seam. */
export function noteSeamReason(request: FastifyRequest, { reason }: SeamError): void {
  if (typeof reason === 'string' && Object.hasOwn(seamReasons, reason)) request.refusalReason = reason
}

/** Notes that the header section of the final response is written now. A later response that takes its place counts. */
export function noteFirstByte(request: FastifyRequest, reply: FastifyReply): void {
  if (request.isTimed) request.firstByteMs = reply.elapsedTime
}

/** Notes when Node writes the header section: of a stream that is piped into the response, with the first chunk. */
export function noteHeadWritten(request: FastifyRequest, reply: FastifyReply): void {
  if (!request.isTimed) return
  const { raw } = reply
  const writeHead: (...args: never[]) => unknown = raw.writeHead
  Object.assign(raw, {
    writeHead(...args: never[]): unknown {
      noteFirstByte(request, reply)
      return Reflect.apply(writeHead, raw, args)
    }
  })
}
