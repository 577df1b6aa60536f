/** Methods of authentication in shadow mode, and what they leave as it is. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { endCalls } from '../bridge/request-mesh.ts'
import type { RecordRefusal } from '../concern-refusals.ts'
import { clientAddressOf } from '../protocol/client-address.ts'
import { goneSignal } from '../protocol/client-gone.ts'
import { recordError } from '../shadow.ts'
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

/** Decisions of one route that no request waits for, at a time. */
const mostBeside = 1000
/** Shortest time between two warnings that there are more. */
const warnEveryMs = 10_000

/**
 * Returns the hook of a method in shadow mode on its route. It names the caller only where nothing else does; otherwise rules
 * for consumers would decide on a caller that the route has not authenticated. Where it names nobody, and `mayTakeLong`, the
 * request does not wait for it.
 */
export function asShadow(hook: Hook, route: RouteMethods<unknown>, record: RecordRefusal, mayTakeLong: boolean): Hook {
  let beside = 0
  let warnedAt = Number.NEGATIVE_INFINITY
  const judgeBeside: Hook = (request, reply, done) => {
    const now = performance.now()
    if (beside < mostBeside) {
      beside++
      const seen = viewOf(request)
      hook(seen, withoutFields(reply), (error) => {
        beside--
        endCalls(seen)
        if (error !== undefined) recordError(record, request, error, seen.refusalReason ?? undefined, reply)
      })
    } else if (now - warnedAt > warnEveryMs) {
      warnedAt = now
      request.log.warn(
        `${mostBeside} decisions of a method in shadow mode are in flight: further requests pass without one`
      )
    }
    route.removeLate(request)
    done()
  }
  return (request, reply, done) => {
    const restore = callerOf(request)
    const hasOther = route.enforced !== null || request.consumer !== null
    if (hasOther && mayTakeLong) return judgeBeside(request, reply, done)
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

/** Returns a view of a request: what a method sets on it stays there, and it keeps the header fields as they are now. */
function viewOf(request: FastifyRequest): FastifyRequest {
  clientAddressOf(request)
  goneSignal(request)
  const { upstreamHeaders, headers } = request
  return Object.create(request, {
    upstreamHeaders: { value: upstreamHeaders && [...upstreamHeaders], writable: true },
    headers: { value: { ...headers } },
    refusalReason: { value: null, writable: true }
  })
}

/** Returns a view of a reply on which header fields have no effect. */
const withoutFields = (reply: FastifyReply): FastifyReply => Object.create(reply, { header: { value: () => reply } })

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
