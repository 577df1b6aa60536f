/** Facts about a response for the access log: its time to first byte, its source, and the reason of a refusal. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { SeamError, SeamReason } from '../seam.ts'
import type { ShadowRefusal } from './shadow.ts'

/** A call of a composed route, for the access log. */
interface PartialCall {
  readonly call: string
  readonly service: string
  /** Absent if no response arrived. */
  readonly status?: number
  readonly ms: number
  /** Code of its failure. */
  readonly error?: string
}

declare module 'fastify' {
  interface FastifyRequest {
    /** Calls of a composed route that have ended; null on other routes. */
    partialCalls: PartialCall[] | null
    /** True if the times of the request are measured; otherwise the clock is not read. */
    isTimed: boolean
    /** Milliseconds from the request to the header section of its final response; null before that, or if `isTimed` is false. */
    firstByteMs: number | null
    /** Reason of a refusal that the error code leaves open: a word from a closed list, never a part of the request. */
    refusalReason: string | null
    /** Refusals of concerns in shadow mode; null if there is none. */
    shadowRefusals: ShadowRefusal[] | null
    /** Reads the header section of a service's response, and returns the one to pass on; must not change the given one. */
    onServiceResponse: ((headers: IncomingHttpHeaders, status: number) => IncomingHttpHeaders) | null
    /** Header section of the service's response, if `onServiceResponse` gets a part of it; null if it gets all. */
    serviceHeaders: IncomingHttpHeaders | null
    /** Target of the client, without credentials that concerns have removed, if a concern has changed the query; else null. */
    clientTarget: string | null
    /** True if a concern of the gateway responds itself, with something other than an error. */
    isOwnResponse: boolean
  }
}

export function decorateOutcome(fastify: FastifyInstance): void {
  fastify.decorateRequest('isTimed', false)
  fastify.decorateRequest('firstByteMs', null)
  fastify.decorateRequest('refusalReason', null)
  fastify.decorateRequest('shadowRefusals', null)
  fastify.decorateRequest('isOwnResponse', false)
  fastify.decorateRequest('clientTarget', null)
  fastify.decorateRequest('onServiceResponse', null)
  fastify.decorateRequest('serviceHeaders', null)
  fastify.decorateRequest('partialCalls', null)
}

/** The reasons of the mesh; the compiler checks that none is missing. */
export const seamReasons: Readonly<Record<SeamReason, true>> = {
  instances_unknown: true,
  instances_none: true,
  instances_unavailable: true,
  overload_requests: true,
  overload_pending: true,
  overload_instances: true,
  overload_adaptive: true,
  circuit_open: true,
  circuit_half_open: true,
  continue_unasked: true,
  credentials_refused: true,
  credentials_unavailable: true,
  credentials_malformed: true
}

/** Records the reason that an error of the mesh carries. */
export function recordSeamReason(request: FastifyRequest, { reason }: SeamError): void {
  if (typeof reason === 'string' && Object.hasOwn(seamReasons, reason)) request.refusalReason = reason
}

/** Records that the header section of the final response is written now. A response that replaces it is recorded again. */
export function recordFirstByte(request: FastifyRequest, reply: FastifyReply): void {
  if (request.isTimed) request.firstByteMs = reply.elapsedTime
}

/** Records the time at which Node writes the header section: for a piped stream, with its first chunk. */
export function recordHeadWritten(request: FastifyRequest, reply: FastifyReply): void {
  if (!request.isTimed) return
  const { raw } = reply
  const writeHead: (...args: never[]) => unknown = raw.writeHead
  Object.assign(raw, {
    writeHead(...args: never[]): unknown {
      recordFirstByte(request, reply)
      return Reflect.apply(writeHead, raw, args)
    }
  })
}
