import type { FastifyPluginAsync, FastifyPluginCallback } from 'fastify'
import fp from 'fastify-plugin'
import type { Config, RouteConfig } from '../../config/schema.ts'
import accessLog from './concerns/access-log.ts'
import bodyLimit from './concerns/body-limit.ts'
import bodyTimeout from './concerns/body-timeout.ts'
import cors from './concerns/cors.ts'
import jwt from './concerns/jwt/index.ts'
import maxForwards from './concerns/max-forwards.ts'
import metrics from './concerns/metrics.ts'
import overload from './concerns/overload/index.ts'
import rateLimit from './concerns/rate-limit/index.ts'
import requestId from './concerns/request-id.ts'
import websocket from './concerns/websocket/index.ts'
import errors from './errors.ts'
import { EdgeOrder } from './order.ts'
import { settleForwardedFor } from './protocol/client-address.ts'
import clientGone from './protocol/client-gone.ts'
import clientLimits from './protocol/client-limits.ts'
import { refuseTunnel } from './protocol/connect.ts'
import { meetExpectations } from './protocol/expect.ts'
import { removeDoubted } from './protocol/forwarding-headers.ts'
import { boundSessions } from './protocol/http2-sessions.ts'
import pipelining from './protocol/pipelining.ts'
import { tellRefused } from './protocol/refusals.ts'
import requestTarget from './protocol/request-target.ts'
import { boundReaders } from './protocol/slow-reader.ts'
import { receiveUpgrades } from './protocol/upgrades.ts'

/** Whether a concern is on for a route; those of the listener are on for all. */
type Plugin = FastifyPluginAsync<Config> | FastifyPluginCallback<Config>
type On = (edge: RouteConfig['edge']) => unknown

/**
 * The edge's concerns in the order in which a request meets them. To add one, add its file and a line here;
 * to remove one, the reverse. The bridge comes after them and after the user's own plugins.
 */
const concerns: readonly (readonly [name: string, plugin: Plugin, on: On])[] = [
  ['errors', errors, () => true], // first: whatever fails from here on is answered in one shape
  ['request-id', requestId, () => true], // before all that logs
  ['client-gone', clientGone, () => true], // from now on a client may leave at any moment
  ['access-log', accessLog, (edge) => edge.accessLog !== false], // sees every outcome, refusals included
  ['metrics', metrics, () => true], // likewise
  ['overload', overload, () => true], // before anything else costs a descriptor
  ['pipelining', pipelining, () => true], // before anything is done for it
  ['client-limits', clientLimits, () => true], // one that waits holds nothing but its memory
  ['request-target', requestTarget, () => true], // before any rule that goes by the path
  ['body-timeout', bodyTimeout, () => true], // the clock runs from the head on
  ['cors', cors, (edge) => edge.cors], // preflights carry no credentials and must not be counted
  ['rate-limit', rateLimit, (edge) => edge.rateLimit], // before the cost of authentication; by consumer: after it
  ['jwt', jwt, (edge) => edge.jwt], // who calls
  ['websocket', websocket, (edge) => edge.websocket], // only who may come in gets to know
  ['max-forwards', maxForwards, () => true], // what it answers, a service would have
  ['body-limit', bodyLimit, (edge) => edge.bodyLimit] // only now is the body looked at
]

/** Names of the concerns in force on a route, in their order. */
export function edgeConcerns({ edge }: RouteConfig): string[] {
  return concerns.filter(([, , on]) => Boolean(on(edge))).map(([name]) => name)
}

export default fp<Config>(
  async (fastify, config) => {
    // There is no constructor option for it; an embedding server's own number stands.
    fastify.server.maxConnections ??= config.listen.limits.connections
    // By default Node keeps the first 1,000 fields of a request and drops the rest silently; `limits.headers` bounds them.
    fastify.server.maxHeadersCount ??= 0
    fastify.server.on('drop', (from) => {
      tellRefused(fastify.server, { reason: 'connections', ip: from?.remoteAddress })
    })
    fastify.server.on('connect', refuseTunnel)
    meetExpectations(fastify.server)
    receiveUpgrades(fastify)
    const { timeouts, limits } = config.listen
    boundSessions(fastify.server, timeouts, boundReaders(fastify.server, { ...timeouts, ...limits }))
    const removeDoubtedHeaders = removeDoubted(config.listen)
    // Before anything asks for `request.ip`.
    fastify.addHook('onRequest', (request, _reply, done) => {
      removeDoubtedHeaders?.(request.raw)
      settleForwardedFor(request.raw)
      done()
    })
    const order = new EdgeOrder(concerns.map(([name]) => name))
    fastify.decorate('edgeOrder', order)
    for (const [index, [, plugin]] of concerns.entries()) {
      fastify.addHook('onRoute', order.hookAt(index))
      await fastify.register(plugin, config)
    }
    fastify.addHook('onRoute', order.hookAt(concerns.length))
  },
  { name: 'jingwei-edge', fastify: '5.x' }
)
