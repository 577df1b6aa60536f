/** Request decorators and the builder of requests to services, used by the bridge, `request.mesh` and `proxyClient`. */
import { randomUUID } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import stores from '../../keep-stores.ts'
import { bodyMemoryOf } from '../body-memory.ts'
import { meterOf } from '../concern.ts'
import { decorateOutcome } from '../outcome.ts'
import { decorateTrace } from '../request-trace.ts'
import { decorateUpstreamHeaders } from './upstream-headers.ts'
import { UpstreamRequests } from './upstream-request.ts'

declare module 'fastify' {
  interface FastifyInstance {
    upstreamRequests: UpstreamRequests
  }
  interface FastifyRequest {
    /** True if the peer is a trusted proxy of its listener (`trustProxy`). */
    readonly trusted: boolean
  }
}

/** Registered before users' plugins: their contexts do not see later decorators. */
export default fp<Config>(
  async (fastify, config) => {
    await fastify.register(stores, {})
    // A random name, since a gateway behind another one is no loop. It survives a reload, so that loops are still found.
    const pseudonym = () => `jingwei-${randomUUID().slice(0, 8)}`
    const requests = new UpstreamRequests(config, fastify.stores.claim('jingwei.pseudonym', null, pseudonym))
    fastify.decorate('upstreamRequests', requests)
    fastify.decorate('bodyMemory', bodyMemoryOf(fastify.stores, meterOf(fastify)))
    fastify.decorateRequest('bodyHold', null)
    fastify.decorateRequest('mayGetOtherBytes', false)
    fastify.decorateRequest('exchange', null)
    fastify.decorateRequest('asyncContext', null)
    decorateOutcome(fastify)
    decorateTrace(fastify)
    fastify.decorateRequest('trusted', {
      getter(this: FastifyRequest) {
        return requests.peers.isTrusted(this.raw)
      }
    })
    decorateUpstreamHeaders(fastify)
    // `request.mesh` sends the headers that these routes set for services.
    fastify.addHook('onRoute', ({ config }) => {
      if (config?.ownRoute !== undefined) requests.trust.addEverywhere(config.dropHeaders ?? [])
    })
  },
  { name: 'jingwei-request-state', fastify: '5.x' }
)
