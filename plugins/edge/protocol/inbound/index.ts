import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../../../config/schema.ts'
import { addUpstreamHeader, decorateUpstreamHeaders } from '../../bridge/upstream-headers.ts'
import type { ShownRoute } from '../../concern.ts'
import { meterOf } from '../../concern.ts'
import { byListener } from '../peers.ts'
import { callerOf } from './caller.ts'

const Denied = createError('JW_CALLER_DENIED', 'The calling service may not call this one', 403)
const Undecided = createError('JW_CALLER_UNDECIDED', 'It is not known yet which services may call this one', 503)

/** Header by which services learn the caller, as from Envoy. Copies of clients are dropped. */
const FORWARDED = 'x-forwarded-client-cert'

/** Returns whether a route is served by a listener that services reach through the mesh. */
export const servesCallers = ({ match = {} }: Pick<ShownRoute, 'match'>, listeners: Config['listeners']): boolean =>
  listeners.some(({ name, connect }) => connect !== undefined && match.listeners?.includes(name) !== false)

/**
 * On listeners that services reach through the mesh: refuses callers that may not call, and makes the calling service the
 * consumer. The decision is made for each request, so a change applies to open connections, too.
 */
export default fp<Config>(
  async (fastify, config) => {
    if (config.listeners.every(({ connect }) => connect === undefined)) return
    decorateUpstreamHeaders(fastify)
    const refused = meterOf(fastify).counter({
      name: 'jingwei_edge_callers_refused_total',
      help: 'Requests of services that may not call, by listener and reason.',
      labelNames: ['listener', 'reason']
    })
    const rulesOf = byListener(config, ({ name, connect }) =>
      connect === undefined
        ? null
        : {
            allowsUndecided: connect.whenUnknown === 'allow',
            denied: refused.labels(name, 'denied'),
            undecided: refused.labels(name, 'undecided')
          }
    )
    fastify.addHook('onRequest', (request, _reply, done) => {
      const rules = rulesOf(request.raw)
      if (rules === null) return done()
      const caller = callerOf(request.raw.socket)
      const admission = caller?.admission() ?? 'denied'
      if (admission === 'denied') {
        rules.denied.inc()
        return done(new Denied())
      }
      if (admission === 'unknown' && !rules.allowsUndecided) {
        rules.undecided.inc()
        return done(new Undecided())
      }
      request.consumer = caller!.consumer
      addUpstreamHeader(request, FORWARDED, caller!.forwarded)
      done()
    })
  },
  { name: 'jingwei-inbound', fastify: '5.x' }
)
