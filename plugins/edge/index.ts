import type { IncomingMessage } from 'node:http'
import fp from 'fastify-plugin'
import type { Key, RouteConfigKeys } from '../../config/concern.ts'
import type { Config } from '../../config/schema.ts'
import { reservedRouteConfig } from './attach.ts'
import { bridgeKeys, bridgeRouteConfig } from './bridge/options.ts'
import type { EdgeConcern } from './concern.ts'
import { edgeConcern, everywhere } from './concern.ts'
import accessLog from './concerns/access-log.ts'
import bodyLimit from './concerns/body-limit.ts'
import bodyTimeout from './concerns/body-timeout.ts'
import cors from './concerns/cors/index.ts'
import jwt from './concerns/jwt/index.ts'
import maxForwards from './concerns/max-forwards.ts'
import metrics from './concerns/metrics.ts'
import overload from './concerns/overload/index.ts'
import rateLimit from './concerns/rate-limit/index.ts'
import websocket from './concerns/websocket/index.ts'
import type {} from './consumer.ts'
import { watchErrorHandlers } from './error-handlers.ts'
import errors from './errors.ts'
import { watchRouteHooks } from './not-found.ts'
import { EdgeOrder } from './order.ts'
import { OwnRoutes } from './own-routes.ts'
import clientGone from './protocol/client-gone.ts'
import clientLimits from './protocol/client-limits.ts'
import { byListener, Peers } from './protocol/peers.ts'
import pipelining from './protocol/pipelining.ts'
import { isProtected, protect } from './protocol/protection.ts'
import redirect from './protocol/redirect.ts'
import requestId from './protocol/request-id.ts'
import requestTarget from './protocol/request-target.ts'
import { asksForCertificates } from './protocol/tls/client-rules.ts'
import tls from './protocol/tls/index.ts'
import { receiveUpgrades } from './protocol/upgrades.ts'

/**
 * The edge's concerns in the order in which a request meets them. To add one, add its file and a line here;
 * to remove one, the reverse. The bridge comes after them and after the user's own plugins.
 */
export const concerns: readonly EdgeConcern[] = [
  everywhere('errors', errors), // first: whatever fails from here on is answered in one shape
  requestId, // before all that logs
  everywhere('client-gone', clientGone), // from now on a client may leave at any moment
  accessLog, // sees every outcome, refusals included
  everywhere('metrics', metrics), // likewise
  everywhere('overload', overload), // before anything else costs a descriptor
  everywhere('pipelining', pipelining), // before anything is done for it
  everywhere('client-limits', clientLimits), // one that waits holds nothing but its memory
  everywhere('request-target', requestTarget), // before any rule that goes by the path
  everywhere('to-https', redirect), // no concern of a route is asked on a listener that only redirects
  everywhere('client-certificate', tls, [], asksForCertificates), // the host is in order: may its requests come on this connection?
  bodyTimeout, // the clock runs from the head on
  cors, // preflights carry no credentials and must not be counted
  rateLimit, // before the cost of authentication; by consumer: after it
  jwt, // who calls
  websocket, // only who may come in gets to know
  everywhere('max-forwards', maxForwards), // what it answers, a service would have
  bodyLimit // only now is the body looked at
]

declare module 'fastify' {
  interface FastifyInstance {
    /** Returns the name of the listener that a request came to. */
    listenerOf: (request: IncomingMessage) => string
  }
  interface FastifyRequest {
    /** Name of the listener that it came to. */
    readonly listener: string
  }
}

/** Commands of the command line that concerns bring along. */
export const commands = concerns.flatMap((concern) => concern.commands ?? [])

/** The keys of `edge`. */
export const edgeKeys: readonly Key[] = [...concerns.flatMap(({ keys }) => keys), ...bridgeKeys]

/** Keys of the concerns that have a position among hooks of routes. */
export const edgePositions: readonly string[] = new EdgeOrder(concerns).names

/** The keys of `routes[].config` that the edge reads, and names that no plugin can have. */
export const edgeRouteConfig: RouteConfigKeys = {
  schemas: new Map(Object.entries(bridgeRouteConfig)),
  reserved: new Map(Object.entries(reservedRouteConfig)),
  plugins: null
}

export default fp<Config>(
  async (fastify, config) => {
    if (!isProtected(fastify.server)) {
      const protection = protect(fastify.server, config.listen, fastify.log)
      fastify.addHook('onClose', async () => protection.close())
    }
    receiveUpgrades(fastify)
    const peers = new Peers(config)
    // Before anything asks for `request.ip`.
    fastify.addHook('onRequest', (request, _reply, done) => {
      peers.settle(request.raw)
      done()
    })
    const listenerOf = byListener(config, ({ name }) => name)
    fastify.decorate('listenerOf', listenerOf)
    fastify.decorateRequest('listener', {
      getter() {
        return listenerOf(this.raw)
      }
    })
    const order = new EdgeOrder(concerns, config.listeners)
    fastify.decorate('edgeOrder', order)
    const ownRoutes = new OwnRoutes(fastify, config, order)
    watchRouteHooks(fastify)
    fastify.addHook('onRoute', ownRoutes.begin)
    fastify.decorate('edgeConcern', edgeConcern)
    fastify.decorateRequest('consumer', null)
    for (const [index, { plugin }] of concerns.entries()) {
      fastify.addHook('onRoute', order.hookAt(index))
      await fastify.register(plugin, config)
    }
    watchErrorHandlers(fastify)
    fastify.addHook('onRoute', order.hookAt(concerns.length))
    fastify.addHook('onRoute', ownRoutes.end)
  },
  { name: 'jingwei-edge', fastify: '5.x' }
)
