/** Methods of authentication in shadow mode, and what they leave as it is. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Method } from './method.ts'

export type Done = (error?: Error) => void
export type Hook = (request: FastifyRequest, reply: FastifyReply, done: Done) => void

/** The methods of one route. `E` are those that are enforced. */
export class RouteMethods<E> {
  enforced: E | null = null
  /** True if a method in shadow mode comes after those that are enforced. */
  isShadowLast = false
  readonly #removals = new WeakMap<FastifyRequest, () => void>()

  /** Removes credentials, once no method comes that may need the request as it was sent. */
  remove(request: FastifyRequest, remove: () => void): void {
    if (this.isShadowLast) this.#removals.set(request, remove)
    else remove()
  }

  /** Removes the credentials that wait for a method in shadow mode. */
  removeLate(request: FastifyRequest): void {
    this.#removals.get(request)?.()
  }
}

/** Returns a method that removes no credentials, since the service may still check them, and responds to nobody. */
export function withoutEffects<C>(given: Method<C>): Method<C> {
  const { carrier: _carrier, removeOthers: _removeOthers, removesBearer: _removesBearer, ...method } = given
  return {
    ...method,
    refusal: (error, request) => ({ ...method.refusal(error, request), respond: undefined }),
    remove() {}
  }
}

/**
 * Returns the hook of a method in shadow mode on its route. It names the caller only where nothing else does; otherwise rules
 * for consumers would decide on a caller that the route has not authenticated.
 */
export function asShadow(hook: Hook, route: RouteMethods<unknown>): Hook {
  return (request, reply, done) => {
    const restore = callerOf(request)
    const hasOther = route.enforced !== null || request.consumer !== null
    let isFinished = false
    const finish = (): void => {
      if (isFinished) return
      isFinished = true
      if (hasOther) restore()
      route.removeLate(request)
    }
    try {
      hook(request, reply, (error) => {
        finish()
        done(error)
      })
    } catch (error) {
      finish()
      throw error
    }
  }
}

/** Stores the caller of a request, its claims and the headers that are set for the service. The returned function restores them. */
function callerOf(request: FastifyRequest): () => void {
  const { consumer, upstreamHeaders } = request
  const user = Reflect.get(request, 'user')
  const headers = upstreamHeaders === null ? null : [...upstreamHeaders]
  return () => {
    request.consumer = consumer
    request.upstreamHeaders = headers
    if (Reflect.get(request, 'user') !== user) Reflect.set(request, 'user', user)
  }
}
