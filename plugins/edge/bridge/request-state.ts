/** State of a request's exchange with a service, and the builder of requests to services: for the bridge and the clients beside it. */
import { randomUUID } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import stores from '../../keep-stores.ts'
import { decorateOutcome } from '../outcome.ts'
import { decorateUpstreamHeaders } from './upstream-headers.ts'
import { UpstreamRequests } from './upstream-request.ts'

declare module 'fastify' {
  interface FastifyInstance {
    upstreamRequests: UpstreamRequests
  }
  interface FastifyRequest {
    /** True if it comes from a peer that its listener trusts (`trustProxy`). */
    readonly trusted: boolean
  }
}

/** Before the plugins of users, whose contexts would not see what is decorated after them. */
export default fp<Config>(
  async (fastify, config) => {
    await fastify.register(stores, {})
    // A gateway behind a gateway is no loop. The same request back here is one, be it to the next configuration.
    const pseudonym = () => `jingwei-${randomUUID().slice(0, 8)}`
    const requests = new UpstreamRequests(config, fastify.stores.claim('jingwei.pseudonym', null, pseudonym))
    fastify.decorate('upstreamRequests', requests)
    fastify.decorateRequest('exchange', null)
    fastify.decorateRequest('asyncContext', null)
    decorateOutcome(fastify)
    fastify.decorateRequest('trusted', {
      getter(this: FastifyRequest) {
        return requests.peers.isTrusted(this.raw)
      }
    })
    decorateUpstreamHeaders(fastify)
    // `request.mesh` sends what these routes set for services.
    fastify.addHook('onRoute', ({ config }) => {
      if (config?.ownRoute !== undefined) requests.trust.addEverywhere(config.dropHeaders ?? [])
    })
  },
  { name: 'jingwei-request-state', fastify: '5.x' }
)
