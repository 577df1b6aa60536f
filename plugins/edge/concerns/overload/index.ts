import type { Socket } from 'node:net'
import createError from '@fastify/error'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import type { Config } from '../../../../config/schema.ts'
import { meterOf } from '../../concern.ts'
import { isHandshake } from '../../protocol/handshake.ts'
import { refuseConnection } from '../../protocol/refusals.ts'
import { Descriptors } from './descriptors.ts'
import { LoopLag } from './loop-lag.ts'

const OutOfCpu = createError('JW_OUT_OF_CPU', 'The gateway is overloaded (event loop)', 503)
const OutOfDescriptors = createError('JW_OUT_OF_DESCRIPTORS', 'The gateway is overloaded (file descriptors)', 503)

/** Time without a refusal after which the shortage is over. */
const quietMs = 10_000

/**
 * Returns the reserved descriptors. Below `connections`, new client connections are refused: the reserve is for connections
 * to services, the admin port, DNS, Consul and Redis. Below `requests`, a quarter of it, requests are refused too.
 */
export function reserveOf(limit: number): { connections: number; requests: number } {
  const connections = Math.min(1024, Math.max(32, Math.floor(limit / 10)))
  return { connections, requests: Math.floor(connections / 4) }
}

/**
 * Sheds load while the gateway itself is overloaded. When file descriptors run out, it first refuses new connections and
 * WebSockets, then requests on open connections; otherwise every request and the gateway's own look-ups would fail. While
 * the event loop lags, it refuses requests, so that requests in flight can complete.
 */
export default fp<Config>(
  async (fastify, { listeners }) => {
    const counter = meterOf(fastify).counter({
      name: 'jingwei_edge_shed_total',
      help: 'Requests refused with 503 because the gateway itself is overloaded, by reason.',
      labelNames: ['reason']
    })
    const count = (reason: string) => {
      const child = counter.labels(reason)
      child.inc(0)
      return () => child.inc()
    }
    watchLoop(fastify, count('event-loop'))
    const descriptors = new Descriptors()
    if (Number.isFinite(descriptors.limit)) watchDescriptors(fastify, listeners, descriptors, count('descriptors'))
  },
  { name: 'jingwei-overload', fastify: '5.x' }
)

function watchLoop(fastify: FastifyInstance, count: () => void): void {
  const { log } = fastify
  const lag = new LoopLag((isLagging) => {
    if (isLagging) log.error({}, 'event loop lags by more than a second: requests are refused with JW_OUT_OF_CPU')
    else log.info({}, 'event loop no longer lags: requests are accepted again')
  })
  fastify.addHook('onClose', async () => lag.close())
  fastify.addHook('onRequest', (_request, _reply, done) => {
    if (!lag.isLagging) return done()
    count()
    done(new OutOfCpu())
  })
}

function watchDescriptors(
  fastify: FastifyInstance,
  listeners: Config['listeners'],
  descriptors: Descriptors,
  count: () => void
): void {
  const { log, server } = fastify
  const { limit } = descriptors
  const reserve = reserveOf(limit)
  const connections = listeners.reduce((sum, { limits }) => sum + limits.connections, 0)
  if (connections > limit - reserve.connections) {
    const fields = { limit, connections }
    log.warn(
      fields,
      `listen.limits.connections cannot be reached: the process may open ${limit} files; raise the limit (ulimit -n)`
    )
  }
  let quiet: NodeJS.Timeout | null = null
  const noteShortage = () => {
    if (quiet !== null) {
      quiet.refresh()
      return
    }
    log.error(
      { limit },
      'short of file descriptors: new connections are refused; raise the limit (ulimit -n, LimitNOFILE)'
    )
    quiet = setTimeout(() => {
      quiet = null
      log.info({ limit }, `no longer short of file descriptors: nothing was refused for ${quietMs / 1000} s`)
    }, quietMs).unref()
  }
  fastify.addHook('onClose', async () => {
    if (quiet !== null) clearTimeout(quiet)
  })
  server.on('connection', (socket: Socket) => {
    descriptors.noteOpen()
    if (!descriptors.isShort(reserve.connections)) return
    noteShortage()
    refuseConnection(server, socket, 'descriptors')
  })
  fastify.addHook('onRequest', (request, _reply, done) => {
    // The request may need a connection to the service.
    descriptors.announce()
    if (!descriptors.isShort(isHandshake(request.raw) ? reserve.connections : reserve.requests)) return done()
    noteShortage()
    count()
    done(new OutOfDescriptors())
  })
}
