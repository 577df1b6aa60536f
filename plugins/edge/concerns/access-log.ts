import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import Type from 'typebox'
import { maskUserinfo } from '../../../config/credentials.ts'
import { unmapped } from '../../http-syntax.ts'
import { edgeRouteOf, isUnrouted } from '../attach.ts'
import { edgeConcern } from '../concern.ts'
import type { Refusal } from '../protocol/refusals.ts'
import { onRefused } from '../protocol/refusals.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** The client's address, taken on arrival: Node forgets the socket of a request that is over. */
    callerIp: string
  }
}

/** Tells a logger that knows it that values and message are plain: no serializer, no error, no cycle, no escape. */
const plain = Symbol.for('jingwei.log.plain')

/** Refusals of new connections, of which a flood brings thousands: a line a second at most. */
const manyAtOnce = new Set<Refusal['reason']>(['connections', 'client-connections', 'descriptors'])

declare module '../../../config/schema.ts' {
  interface EdgePolicy {
    accessLog?: boolean
  }
}

/** One JSON line a request. No query and no header but the agent's: secrets travel in them. */
export default edgeConcern({
  name: 'accessLog',
  options: Type.Boolean({ description: 'One JSON line for each request.' }),
  default: true,
  protects: false,
  ownRoutes: 'always',
  async plugin(fastify, { config: { edge } }) {
    fastify.decorateRequest('callerIp', '')
    const arrive = (request: FastifyRequest, _reply: FastifyReply, done: () => void) => {
      request.callerIp = unmapped(request.ip)
      done()
    }
    const log = (route: string | null) => (request: FastifyRequest, reply: FastifyReply, done: () => void) => {
      const target = request.raw.url!
      // One in absolute form may have credentials.
      const url = target.startsWith('/') ? target : maskUserinfo(target)
      const query = url.indexOf('?')
      const { exchange } = request
      fastify.log.info(
        {
          [plain]: true,
          requestId: request.id,
          method: request.method,
          path: query === -1 ? url : url.slice(0, query),
          route,
          status: reply.statusCode,
          durationMs: Math.round(reply.elapsedTime * 100) / 100,
          ip: request.callerIp || unmapped(request.ip),
          agent: request.headers['user-agent'],
          consumer: request.consumer?.id,
          service: exchange?.call?.service,
          instance: exchange?.call?.instance,
          attempts: exchange?.call?.attempts,
          bytesSent: exchange?.bytesSent,
          error: request.failure ?? undefined,
          cause: request.failureCause ?? undefined
        },
        'request'
      )
      done()
    }
    if (edge.accessLog !== false) {
      logRefusals(fastify)
      const unrouted = log(null)
      fastify.addHook('onResponse', (request, reply, done) => {
        if (isUnrouted(request)) unrouted(request, reply, done)
        else done()
      })
    }
    return (_on, { config }) => ({ onRequest: arrive, onResponse: log(edgeRouteOf(config)!.name) })
  }
})

function logRefusals(fastify: FastifyInstance): void {
  let quietUntil = 0
  onRefused(fastify.server, ({ status, ip, code, reason }) => {
    if (manyAtOnce.has(reason)) {
      // A line for each would be one attack more.
      const now = Date.now()
      if (now < quietUntil) return
      quietUntil = now + 1000
    }
    fastify.log.info({ [plain]: true, route: null, status, ip, error: code ?? reason }, 'request')
  })
}
