import type { Socket } from 'node:net'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../config/schema.ts'
import { Descriptors } from './descriptors.ts'
import { refuseConnection } from './refusals.ts'
import { isHandshake } from './websocket-handshake.ts'

const OutOfDescriptors = createError('JW_OUT_OF_DESCRIPTORS', 'The gateway is overloaded (file descriptors)', 503)

/** The shortage is over when nothing was shed for this long. */
const quietMs = 10_000

/**
 * Descriptors that no new connection of a client gets: they are for connections to services, the admin port, DNS, Consul and
 * Redis. A quarter of them is for all but connections to services: then requests are shed too.
 */
export function reserveOf(limit: number): { connections: number; requests: number } {
  const connections = Math.min(1024, Math.max(32, Math.floor(limit / 10)))
  return { connections, requests: Math.floor(connections / 4) }
}

/**
 * Sheds load before the process runs out of file descriptors. New connections and WebSockets are refused first, requests on
 * open connections (HTTP/1.1, HTTP/2) later. Without it, every request fails once descriptors are used up, and so do the
 * gateway's own lookups.
 */
export default fp<Config>(
  async (fastify, { listen }) => {
    const descriptors = new Descriptors()
    const { limit } = descriptors
    if (!Number.isFinite(limit)) return
    const reserve = reserveOf(limit)
    const { log, server } = fastify
    const most = limit - reserve.connections
    if (listen.limits.connections > most) {
      const fields = { limit, connections: listen.limits.connections }
      log.warn(fields, `listen.limits.connections cannot be reached: the process may open ${limit} files (ulimit -n)`)
    }
    const shed = fastify.hasDecorator('meter')
      ? fastify.meter
          .counter({
            name: 'jingwei_edge_shed_total',
            help: 'Requests refused with 503 since the gateway itself is overloaded, by what it is short of.',
            labelNames: ['reason']
          })
          .labels('descriptors')
      : null
    shed?.inc(0)

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
      // It may need a connection to the service.
      descriptors.announce()
      if (!descriptors.isShort(isHandshake(request.raw) ? reserve.connections : reserve.requests)) return done()
      noteShortage()
      shed?.inc()
      done(new OutOfDescriptors())
    })
  },
  { name: 'jingwei-overload', fastify: '5.x' }
)
