import type { Duplex } from 'node:stream'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Registry } from 'prom-client'
import { Gauge } from 'prom-client'
import type { EdgePolicy } from '../../../../config/schema.ts'
import { attach } from '../../attach.ts'
import { handshakeOf } from '../../protocol/handshake.ts'
import { isWebSocket } from '../../protocol/headers.ts'
import { hasBody } from '../../protocol/request-body.ts'
import { Tunnel } from './tunnel.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** On a WebSocket's handshake; `open` joins the client, who has its 101 by then, to the service. */
    upgrade: {
      open: (service: Duplex, onEnd: (bytesSent: number, error: Error | null) => void) => void
    } | null
  }
}

const Refused = createError('JW_UPGRADE_REFUSED', 'WebSockets are not served here', 403)
const WithBody = createError('JW_UPGRADE_WITH_BODY', 'A WebSocket handshake has no body', 400)

/**
 * WebSockets. A handshake meets its route and the route's concerns as any request does; whatever is not a 101 is an
 * ordinary answer. Where they are off, handshakes are refused.
 */
export default fp(
  async (fastify) => {
    const tunnels = new Set<Tunnel>()
    let closing = false
    let onLastEnd: (() => void) | null = null
    const gauge = fastify.hasDecorator('metrics')
      ? new Gauge({
          name: 'jingwei_edge_websockets',
          help: 'WebSockets open now, by route.',
          labelNames: ['route'],
          registers: [fastify.getDecorator<Registry>('metrics')]
        })
      : null

    fastify.decorateRequest('upgrade', null)
    fastify.addHook('onRoute', (routeOptions) => {
      const route = routeOptions.config?.route
      if (route === undefined) return
      const open = gauge?.labels(route.name)
      const { websocket } = route.edge
      if (websocket) open?.set(0)
      attach(routeOptions, 'onRequest', websocket ? meet(websocket, open) : refuse)
    })

    function meet(
      { idleTimeout }: Exclude<EdgePolicy['websocket'], false | undefined>,
      open: ReturnType<Gauge['labels']> | undefined
    ) {
      return (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => {
        const { raw } = request
        if (!isWebSocket(raw.headers.upgrade)) return done()
        if (hasBody(raw)) {
          // Whose end the client and we might see at different places.
          reply.header('connection', 'close')
          return done(new WithBody())
        }
        const shake = handshakeOf(raw)
        if (shake !== undefined) {
          request.upgrade = {
            open: (service, onEnd) => {
              const tunnel = new Tunnel(shake.release(), service, idleTimeout || 0, (error) => {
                tunnels.delete(tunnel)
                open?.dec()
                onEnd(tunnel.bytesSent, error)
                if (tunnels.size === 0) onLastEnd?.()
              })
              tunnels.add(tunnel)
              open?.inc()
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
      if (tunnels.size === 0) return
      await new Promise<void>((resolve) => {
        onLastEnd = resolve
      })
    })
  },
  { name: 'jingwei-websocket', fastify: '5.x' }
)

function refuse(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  done(isWebSocket(request.raw.headers.upgrade) ? new Refused() : undefined)
}
