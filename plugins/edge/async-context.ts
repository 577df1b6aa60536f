/**
 * The async context of a request: what AsyncLocalStorage returns in its hooks. The gateway batches writes and shares
 * connections to services, so that a callback for one request may run in the context of another. Code of plugins must
 * not: @fastify/request-context would show it another caller's store.
 */
import { AsyncResource } from 'node:async_hooks'
import { EventEmitter } from 'node:events'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { hasBody } from './protocol/request-body.ts'

/** Decorator of a server in which only the gateway's own code runs. Nobody could observe another request's context. */
export const SEALED = 'jingwei.sealed'

declare module 'fastify' {
  interface FastifyRequest {
    /** Context at the last point that the request has reached; null before its hooks of `preParsing`, and in a sealed server. */
    asyncContext: AsyncResource | null
  }
}

/** Emitter of a request; `emit` finds the context in it. */
interface Owned {
  owner: FastifyRequest
  emit: (event: string, ...args: unknown[]) => boolean
}

/** Takes the context of this moment for all that happens to the request from here on. */
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
  // Fastify runs `onRequestAbort` hooks by it. HTTP/1.1: a request without a body emits nothing of use.
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

/** Calls code of plugins in the request's context, as far as it is known. */
export function inContext(request: FastifyRequest, code: () => void): void {
  const { asyncContext } = request
  if (asyncContext) asyncContext.runInAsyncScope(code)
  else code()
}
