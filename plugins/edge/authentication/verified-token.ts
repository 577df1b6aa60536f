/** Tokens that a method of authentication has verified, for later concerns: the request to the service may have none. */
import type { FastifyRequest, RouteOptions } from 'fastify'
import { edgeRouteOf } from '../attach.ts'

const tokens = new WeakMap<FastifyRequest, string>()

/** Returns the function that keeps tokens on a route; null if no concern there needs them. */
export function tokenKeeper({ config }: Pick<RouteOptions, 'config'>) {
  // `uma` alone needs them, and may not be there.
  return Reflect.get(edgeRouteOf(config)?.edge ?? {}, 'uma')
    ? (request: FastifyRequest, token: string) => void tokens.set(request, token)
    : null
}

/** Returns the token that was verified last; undefined if none was kept. */
export const verifiedToken = (request: FastifyRequest): string | undefined => tokens.get(request)
