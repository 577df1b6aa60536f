/**
 * The async context of a request, which decides what AsyncLocalStorage returns in its hooks. The gateway batches writes
 * and shares connections to services, so a callback for one request may run in the context of another request. Code of
 * plugins must not: @fastify/request-context would give it the store of another caller.
 */
import { AsyncResource } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hasBody } from './protocol/request-body.ts'

/** Decorator of a server without code of users, in which no code could observe another request's context. */
export const SEALED = 'jingwei.sealed'

declare module 'fastify' {
  interface FastifyRequest {
    /** Context that was captured last; null before the request's `preParsing` hooks, and in a sealed server. */
    asyncContext: AsyncResource | null
  }
}

/** Event emitter that belongs to a request; `emit` reads the context from `owner`. */
interface Owned {
  owner: FastifyRequest
  emit: (event: string, ...args: unknown[]) => boolean
}

/** Captures the current context for all later events of the request. */
export function captureContext(request: FastifyRequest): void {
  request.asyncContext = new AsyncResource('jingwei.request')
}

/**
 * Makes request and response call their listeners in the context captured last. Fastify runs `onResponse` hooks as a
 * listener of the response's `finish`, which may be emitted while another request is served.
 */
export function emitInContext(request: FastifyRequest, reply: FastifyReply): void {
  captureContext(request)
  own(reply.raw, request)
  // Fastify runs `onRequestAbort` hooks by events of the request. A bodiless HTTP/1.1 request emits none that matter.
  if (request.raw.httpVersionMajor > 1 || hasBody(request.raw)) own(request.raw, request)
}

function own(emitter: object, request: FastifyRequest): void {
  const owned = emitter as Owned
  owned.owner = request
  owned.emit = emit
}

function emit(this: Owned, event: string, ...args: unknown[]): boolean {
  return this.owner.asyncContext!.runInAsyncScope(EventEmitter.prototype.emit, this, event, ...args)
}

/** Calls code of plugins in the request's context, if one was captured. */
export function inContext(request: FastifyRequest, code: () => void): void {
  const { asyncContext } = request
  if (asyncContext) asyncContext.runInAsyncScope(code)
  else code()
}
