/**
 * The two paths of a service's response to the client: written to the socket as it comes (`raw`), or sent through
 * Fastify's reply, so that `onSend` hooks run (`reply`). Most of Fastify's ecosystem lives in these hooks.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { RouteConfig } from '../../../config/schema.ts'

export type ResponsePath = 'raw' | 'reply'

/**
 * Returns the path of a route: the configured one, else `reply` if an `onSend` hook other than `own` is on it. The hooks
 * of the route's context and of its parents count: Fastify runs them for the route. Call it once all plugins have loaded.
 */
export function pathOf(
  route: RouteConfig,
  context: FastifyInstance,
  { onSend }: Pick<RouteOptions, 'onSend'>,
  own: unknown
): ResponsePath {
  // @fastify/http-proxy sends by Fastify's reply.
  if (route.via !== undefined) return 'reply'
  const { responsePath = 'auto' } = route.edge
  if (responsePath !== 'auto') return responsePath
  const hooks: unknown[] = [...inherited(context), ...[onSend ?? []].flat()]
  return hooks.some((hook) => hook !== own) ? 'reply' : 'raw'
}

/**
 * Returns the `onSend` hooks of a context and its parents. Fastify has no public way to ask for them. The symbol is looked
 * up by its description, since an embedding server may bring its own copy of Fastify.
 */
function inherited(context: FastifyInstance): readonly unknown[] {
  const symbol = Object.getOwnPropertySymbols(context).find(({ description }) => description === 'fastify.hooks')
  if (symbol === undefined) throw new Error('this version of Fastify keeps its hooks elsewhere: set edge.responsePath')
  return (Reflect.get(context, symbol) as { onSend: readonly unknown[] }).onSend
}
