/** Composes an edge from a list of concerns: the gateway's, or the few of a sidecar. */
import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import type { Direction } from '../../config/direction.ts'
import { directionOf } from '../../config/direction.ts'
import type { Config } from '../../config/schema.ts'
import type { EdgeConcern } from './concern.ts'
import { edgeConcern } from './concern.ts'
import { endChains } from './consumers/hook-chain.ts'
import { decorateConsumers } from './consumers/index.ts'
import { watchErrorHandlers } from './error-handlers.ts'
import { watchRouteHooks } from './not-found.ts'
import { EdgeOrder } from './order.ts'
import { OwnRoutes } from './own-routes.ts'
import { statusOf } from './protocol/listener-status.ts'
import { byListener, Peers } from './protocol/peers.ts'
import { isProtected, protect } from './protocol/protection.ts'
import { receiveUpgrades } from './protocol/upgrades.ts'

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the name of the listener that a request came to. */
    listenerOf: (request: IncomingMessage) => string
    /** Returns the address of a request's client, also before its hooks run. */
    clientAddressOf: (request: IncomingMessage) => string
  }
  interface FastifyRequest {
    /** Name of the listener that the request came to. */
    readonly listener: string
    /** Direction of the traffic on that listener. */
    readonly direction: Direction
  }
}

/** Returns the plugin of an edge with these concerns, in their order. */
export const composeEdge = (name: string, concerns: readonly EdgeConcern[]) =>
  fp<Config>(
    async (fastify, config) => {
      if (!isProtected(fastify.server)) {
        const protection = protect(fastify.server, config.listen, fastify.log)
        fastify.addHook('onClose', async () => protection.close())
        // The listening servers of a process get their service when the configuration is put into use.
        if (fastify.hasDecorator('inbound')) protection.acceptAs(fastify.inbound.of(config.listen.name))
      }
      receiveUpgrades(fastify)
      const peers = new Peers(config)
      fastify.decorateRequest('callerIp', '')
      // Before any code reads `request.ip`.
      fastify.addHook('onRequest', (request, _reply, done) => {
        peers.removeUntrusted(request.raw)
        done()
      })
      const listenerOf = byListener(config, ({ name }) => name)
      fastify.decorate('listenerOf', listenerOf)
      fastify.decorate('clientAddressOf', (request) => peers.addressOf(request))
      fastify.decorateRequest('listener', {
        getter() {
          return listenerOf(this.raw)
        }
      })
      const directionFor = byListener(config, directionOf)
      fastify.decorateRequest('direction', {
        getter() {
          return directionFor(this.raw)
        }
      })
      fastify.decorate('listenerStatus', () => statusOf(fastify.server, config))
      const order = new EdgeOrder(concerns, config.listeners, config.edge)
      fastify.decorate('edgeOrder', order)
      const ownRoutes = new OwnRoutes(fastify, config, order)
      watchRouteHooks(fastify)
      fastify.addHook('onRoute', ownRoutes.begin)
      fastify.decorate('edgeConcern', edgeConcern)
      decorateConsumers(fastify, config, () => order.concerns.flatMap((concern) => concern.keys))
      for (const [index, { plugin }] of concerns.entries()) {
        fastify.addHook('onRoute', order.hookAt(index))
        await fastify.register(plugin, config)
      }
      watchErrorHandlers(fastify)
      fastify.addHook('onRoute', order.hookAt(concerns.length))
      fastify.addHook('onRoute', endChains)
      fastify.addHook('onRoute', ownRoutes.end)
    },
    { name, fastify: '5.x' }
  )
