import createError from '@fastify/error'
import type { FastifyInstance } from 'fastify'
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
    const own = config.listeners.find(({ connect }) => connect !== undefined)
    if (own === undefined) return
    // A server of a program's own has no listener that ends TLS for the mesh: it would respond to everybody, in plain HTTP.
    if (fastify.host === null && !fastify.dryRun) {
      throw new Error(`listener ${own.name}: connect works only in a process of the gateway: use \`start\``)
    }
    decorateUpstreamHeaders(fastify)
    const refused = meterOf(fastify).counter({
      name: 'jingwei_edge_callers_refused_total',
      help: 'Requests of services that may not call, by listener and reason.',
      labelNames: ['listener', 'reason']
    })
    measureCertificates(fastify)
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

/** Exposes the validity of the certificates, with the metrics of certificates in files. */
function measureCertificates(fastify: FastifyInstance): void {
  if (!fastify.hasDecorator('inbound')) return
  const times = [
    ['jingwei_edge_certificate_expiry_timestamp_seconds', 'Time until which the certificate is valid.', 'expiresAt'],
    ['jingwei_edge_certificate_not_before_timestamp_seconds', 'Time from which the certificate is valid.', 'validFrom']
  ] as const
  const ends = times.map(([name, help, time]) =>
    meterOf(fastify).gauge({
      name,
      help,
      labelNames: ['listener', 'certificate'],
      collect: (set) => {
        for (const { listener, service, [time]: at } of fastify.inbound.status()) {
          if (at !== null) set({ listener, certificate: `connect:${service}` }, at)
        }
      }
    })
  )
  fastify.addHook('onClose', async () => {
    for (const end of ends) end()
  })
}
