/**
 * The two paths of a service's response to the client: written to the socket as it arrives (`raw`), or sent through
 * Fastify's reply, so that `onSend` hooks run (`reply`). Many Fastify plugins, such as @fastify/compress, use these hooks.
 */
import type { FastifyInstance, RouteOptions } from 'fastify'
import type { RouteConfig } from '../../../config/schema.ts'
import { hasRawForm } from './body-encoder.ts'

export type ResponsePath = 'raw' | 'reply'

/**
 * Returns the path of a route: the configured one, else `reply` if the route has an `onSend` hook other than `own` and those with a raw form. Hooks of
 * the route's context and its parents count, because Fastify runs them for the route. Call it after all plugins have loaded.
 */
export function pathOf(
  route: RouteConfig,
  context: FastifyInstance,
  { onSend }: Pick<RouteOptions, 'onSend'>,
  own: unknown
): ResponsePath {
  // @fastify/http-proxy and composed routes send through Fastify's reply.
  if (!route.isBridged) return 'reply'
  const { responsePath = 'auto' } = route.edge
  if (responsePath !== 'auto') return responsePath
  const hooks: unknown[] = [...inherited(context), ...[onSend ?? []].flat()]
  return hooks.some((hook) => hook !== own && !hasRawForm(hook)) ? 'reply' : 'raw'
}

/**
 * Returns the `onSend` hooks of a context and its parents. Fastify has no public way to read them. The symbol is found by
 * its description, because an embedding server may have its own copy of Fastify.
 */
function inherited(context: FastifyInstance): readonly unknown[] {
  const symbol = Object.getOwnPropertySymbols(context).find(({ description }) => description === 'fastify.hooks')
  if (symbol === undefined) throw new Error('this version of Fastify keeps its hooks elsewhere: set edge.responsePath')
  return (Reflect.get(context, symbol) as { onSend: readonly unknown[] }).onSend
}
