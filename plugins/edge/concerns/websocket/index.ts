import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import Type from 'typebox'
import { Duration, orOff, strict } from '../../../../config/schema/kit.ts'
import { edgeConcern } from '../../concern.ts'
import { handshakeOf } from '../../protocol/handshake.ts'
import { isWebSocket } from '../../protocol/headers.ts'
import { hasBody } from '../../protocol/request-body.ts'
import { Tunnel } from './tunnel.ts'

const WebSocket = Type.Object(
  {
    idleTimeout: orOff(Duration('Longest silence of both sides; then both are told 1001 and closed.'), {
      default: '5m'
    })
  },
  strict
)

type WebSocketOptions = Static<typeof WebSocket>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    websocket?: WebSocketOptions | false
  }
}

const Refused = createError('JW_UPGRADE_REFUSED', 'WebSockets are not served here', 403)
const WithBody = createError('JW_UPGRADE_WITH_BODY', 'A WebSocket handshake has no body', 400)

/**
 * WebSockets. A handshake meets its route and the route's concerns as any request does; whatever is not a 101 is an
 * ordinary answer. Where they are off, handshakes are refused.
 */
export default edgeConcern({
  name: 'websocket',
  // Those that plugins open are theirs.
  ownRoutes: 'never',
  options: orOff(WebSocket),
  default: {},
  needsBridge: 'http-proxy connects WebSockets by itself, past the mesh; serve them by a route without "via"',
  whenOff: { onRequest: refuse },
  async plugin(fastify, { meter }) {
    const tunnels = new Set<Tunnel>()
    let closing = false
    let onLastEnd: (() => void) | null = null
    const open = new Map<string, number>()
    const unwatch = meter.gauge({
      name: 'jingwei_edge_websockets',
      help: 'WebSockets open now, by route.',
      labelNames: ['route'],
      collect: (set) => {
        for (const [route, count] of open) set({ route }, count)
      }
    })
    const count = (route: string, change: number) => open.set(route, (open.get(route) ?? 0) + change)

    function meet({ idleTimeout }: WebSocketOptions, route: string) {
      return (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => {
        const { raw } = request
        if (!isWebSocket(raw.headers.upgrade)) return done()
        if (hasBody(raw)) {
          // The client and the gateway might see the end of the body at different places.
          reply.header('connection', 'close')
          return done(new WithBody())
        }
        const shake = handshakeOf(raw)
        if (shake !== undefined) {
          request.upgrade = {
            open: (service, onEnd) => {
              const tunnel = new Tunnel(shake.release(), service, idleTimeout || 0, (error) => {
                tunnels.delete(tunnel)
                count(route, -1)
                onEnd(tunnel.bytesSent, error)
                if (tunnels.size === 0) onLastEnd?.()
              })
              tunnels.add(tunnel)
              count(route, 1)
              if (closing) tunnel.close()
            }
          }
        }
        done()
      }
    }

    // A closing server waits for its connections, and these would never end by themselves.
    fastify.addHook('preClose', async () => {
      closing = true
      for (const tunnel of tunnels) tunnel.close()
    })
    // The service's side may take longer than the client's; only when both have ended is a line logged.
    fastify.addHook('onClose', async () => {
      if (tunnels.size > 0) {
        await new Promise<void>((resolve) => {
          onLastEnd = resolve
        })
      }
      unwatch()
    })
    return (options, { config }) => {
      const { name } = config!.route!
      count(name, 0)
      return { onRequest: meet(options, name) }
    }
  }
})

function refuse(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  done(isWebSocket(request.raw.headers.upgrade) ? new Refused() : undefined)
}
