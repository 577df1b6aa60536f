/** Bodies of error responses in place of the standard one. A concern registers them by route; the error table asks for them. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { EdgeRoute } from './attach.ts'
import { edgeRouteOf, isHidden } from './attach.ts'

/** An error as its response tells it. */
export interface ToldError {
  readonly status: number
  /** `JW_` code or that of a plugin; undefined for responses of services, and for errors without a code. */
  readonly code: string | undefined
  readonly message: string
}

export interface ErrorBody {
  readonly type: string
  readonly body: string
  /** True if the body depends on `Accept`. */
  readonly varies: boolean
}

export interface ErrorBodies {
  /** Returns the body for an error; null for the standard one. */
  bodyOf(error: ToldError, request: FastifyRequest): ErrorBody | null
  /** Returns whether the response of a service with this status is replaced. */
  replaces(status: number): boolean
}

declare module 'fastify' {
  interface FastifyInstance {
    /** By route; null stands for requests that match none. */
    errorBodies: Map<EdgeRoute | null, ErrorBodies>
  }
}

export function decorateErrorBodies(fastify: FastifyInstance): void {
  fastify.decorate('errorBodies', new Map<EdgeRoute | null, ErrorBodies>())
}

/** Members of a problem (RFC 9457) beyond those that each error has. */
export type ProblemMembers = Readonly<Record<string, unknown>>

const problems = new WeakMap<FastifyRequest, { readonly code: string; readonly members: ProblemMembers }>()

/** Stores the members of an error that is a problem by itself until its response is made. */
export const keepProblem = (request: FastifyRequest, code: string, members: ProblemMembers): void =>
  void problems.set(request, { code, members })

/** Returns the members that are stored for this error of the request. */
export function problemOf(request: FastifyRequest, code: string | undefined): ProblemMembers | null {
  const problem = problems.get(request)
  return problem !== undefined && problem.code === code ? problem.members : null
}

/** Returns the body for an error of a request; null for the standard one. Before routing, Fastify has no route and no decorators. */
export function errorBodyOf(error: ToldError, request: FastifyRequest): ErrorBody | null {
  const bodies = (request.server as FastifyInstance | undefined)?.errorBodies as
    | FastifyInstance['errorBodies']
    | undefined
  if (bodies === undefined || bodies.size === 0) return null
  const route = edgeRouteOf(request.routeOptions?.config)
  // A hidden route has the response to a request that matches no route.
  const shown = route !== undefined && isHidden(route, request) ? null : (route ?? null)
  return bodies.get(shown)?.bodyOf(error, request) ?? null
}

/** Sets the header fields for a body. */
export function setErrorBody({ type, varies }: ErrorBody, reply: FastifyReply): void {
  reply.header('content-type', type)
  if (!varies) return
  const before = [reply.getHeader('vary') ?? []].flat().map(String)
  if (!before.some((value) => /(^|,)\s*(accept|\*)\s*(,|$)/i.test(value)))
    reply.header('vary', [...before, 'accept'].join(', '))
}
