/** Header fields of a request that a client may not choose: rules and templates must not make other fields of them. */
import type { FastifyInstance, FastifyRequest, RouteOptions } from 'fastify'
import type { Config } from '../../../config/schema.ts'
import type { HeaderFilter } from '../bridge/upstream-headers.ts'
import { headerFilter } from '../bridge/upstream-headers.ts'
import { forwardingOnlyHeaders } from '../protocol/forwarding-headers.ts'
import { Peers } from '../protocol/peers.ts'

/** Returns whether a field of a request does not count, because only the gateway or a trusted peer may send it. */
export type FieldTest = (name: string, request: FastifyRequest) => boolean

/** Returns the function that returns the filter of headers that services trust. It is complete once all routes are added. */
export function trustedByServices(fastify: FastifyInstance, { config }: RouteOptions): () => HeaderFilter | null {
  let filter: HeaderFilter | null | undefined
  return () => {
    if (filter === undefined) {
      const route = config?.route
      filter =
        route !== undefined && fastify.hasDecorator('upstreamRequests')
          ? fastify.upstreamRequests.trust.filterFor(route)
          : headerFilter(config?.dropHeaders)
    }
    return filter
  }
}

/**
 * Returns the test for fields of clients that do not count on a route: those that services trust, and forwarding headers such as
 * `X-Real-IP`, unless a trusted peer has sent them.
 */
export function uncountedFields(fastify: FastifyInstance, route: RouteOptions, config: Config): FieldTest {
  const filter = trustedByServices(fastify, route)
  const isForwarding = headerFilter(forwardingOnlyHeaders(config))!
  const peers = new Peers(config)
  const isTransparent = route.config?.route?.isTransparent === true
  return (name, request) => {
    if (filter()?.(name)) return true
    if (isTransparent || !isForwarding(name)) return false
    return peers.trustedHeadersOf(request.raw)?.names.has(name.toLowerCase()) !== true
  }
}
