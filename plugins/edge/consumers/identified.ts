import type { FastifyContextConfig, FastifyInstance } from 'fastify'
import { identifiesByConcern, identifiesConsumers } from '../../../config/check-facts.ts'
import type { Config } from '../../../config/schema.ts'
import type { EdgeRoute } from '../attach.ts'

/** By route, since most routes have several Fastify routes and concerns. */
const known = new WeakMap<EdgeRoute, boolean>()

/**
 * Returns whether consumers may be known on a route. On a plugin's own route, only its concerns count: what else applies to
 * all requests does not ask for concerns there.
 */
export function mayKnowConsumers(
  fastify: FastifyInstance,
  config: Config,
  { route, ownRoute, preflightFor }: FastifyContextConfig
): boolean {
  const shown = route ?? ownRoute
  // Preflights have no credentials.
  if (shown === undefined || preflightFor !== undefined) return false
  let isKnown = known.get(shown)
  if (isKnown === undefined) {
    const keys = fastify.edgeOrder.concerns.flatMap((concern) => concern.keys)
    isKnown =
      route === undefined ? identifiesByConcern(keys, shown.edge) : identifiesConsumers(keys, shown.edge, config, route)
    known.set(shown, isKnown)
  }
  return isKnown
}
