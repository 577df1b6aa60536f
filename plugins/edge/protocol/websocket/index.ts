import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Static } from 'typebox'
import { Duration, orOff, strict } from '../../../../config/schema/kit.ts'
import Type from '../../../../config/schema/type.ts'
import type { Meter } from '../../../meter.ts'
import { edgeConcern } from '../../concern.ts'
import { handshakeOf } from '../handshake.ts'
import { isWebSocket } from '../headers.ts'
import { hasBody } from '../request-body.ts'
import { Tunnel } from './tunnel.ts'

const WebSocket = Type.Object(
  {
    idleTimeout: orOff(
      Duration(
        'Longest time in which neither side sends anything. Then both get a close frame (1001) and are disconnected.'
      ),
      {
        default: '5m'
      }
    )
  },
  strict
)

type WebSocketOptions = Static<typeof WebSocket>

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    websocket?: WebSocketOptions | false
  }
}

const Refused = createError('JW_UPGRADE_REFUSED', 'This route does not serve WebSockets', 403)
const WithBody = createError('JW_UPGRADE_WITH_BODY', 'A WebSocket handshake must not have a body', 400)

/**
 * WebSockets. A handshake passes its route's concerns like any other request, and a response other than 101 is an ordinary
 * response. On routes on which this concern is off, handshakes are refused.
 */
export default edgeConcern({
  name: 'websocket',
  // WebSockets of plugins' own routes belong to the plugin.
  ownRoutes: 'never',
  options: orOff(WebSocket),
  noShadow: 'where it is off, it refuses WebSockets: jingwei_edge_requests_total with status 101 counts them before',
  default: {},
  needsBridge: 'http-proxy connects WebSockets without the mesh; serve them by a route without "via"',
  forConsumers: { phases: ['onRequest'] },
  whenOff: { onRequest: refuse },
  async plugin(fastify, { meter, stores }) {
    const tunnels = new Set<Tunnel>()
    let closing = false
    let onLastEnd: (() => void) | null = null
    const { counts } = stores.claim(
      'jingwei.websockets',
      null,
      () => countOpen(meter.lasting),
      ({ end }) => end()
    )
    const routes = new Set<string>()
    let hasLeft = false
    /** Shows the count of a route, also one on which only consumers may have WebSockets. */
    const join = (route: string) => {
      if (hasLeft || routes.has(route)) return
      routes.add(route)
      counts.join(route)
    }

    function onHandshake({ idleTimeout }: WebSocketOptions, route: string) {
      return (request: FastifyRequest, reply: FastifyReply, done: (error?: Error) => void) => {
        const { raw } = request
        if (!isWebSocket(raw.headers.upgrade)) return done()
        if (hasBody(raw)) {
          // Client and gateway might disagree where the body ends.
          reply.header('connection', 'close')
          return done(new WithBody())
        }
        const handshake = handshakeOf(raw)
        if (handshake !== undefined) {
          request.upgrade = {
            open: (service, onEnd) => {
              const tunnel = new Tunnel(handshake.release(), service, idleTimeout || 0, (error) => {
                tunnels.delete(tunnel)
                counts.add(route, -1)
                onEnd(tunnel.bytesSent, error)
                if (tunnels.size === 0) onLastEnd?.()
              })
              tunnels.add(tunnel)
              counts.add(route, 1)
              if (closing) tunnel.close()
            }
          }
        }
        done()
      }
    }

    // A closing server waits for its connections, and WebSockets would not end on their own.
    fastify.addHook('preClose', async () => {
      closing = true
      for (const tunnel of tunnels) tunnel.close()
    })
    // Waits for both sides: the access line is logged when the service's side has ended, too.
    fastify.addHook('onClose', async () => {
      if (tunnels.size > 0) {
        await new Promise<void>((resolve) => {
          onLastEnd = resolve
        })
      }
      hasLeft = true
      for (const route of routes) counts.leave(route)
    })
    return (options, { config }) => {
      const { name } = config!.route!
      join(name)
      return { onRequest: onHandshake(options, name) }
    }
  }
})

/** Number of open WebSockets by route, including those of earlier configurations. */
class OpenCounts {
  readonly #routes = new Map<string, { open: number; users: number }>()

  /** Adds a configuration that has the route. The count is shown as long as one has it. */
  join(route: string): void {
    const known = this.#routes.get(route)
    if (known === undefined) this.#routes.set(route, { open: 0, users: 1 })
    else known.users++
  }

  /** Removes a configuration that has the route. */
  leave(route: string): void {
    const known = this.#routes.get(route)!
    known.users--
    if (known.users === 0) this.#routes.delete(route)
  }

  /** A configuration that has ended may still get a handshake, which it began before. */
  add(route: string, change: number): void {
    const known = this.#routes.get(route)
    if (known !== undefined) known.open = Math.max(0, known.open + change)
  }

  *[Symbol.iterator](): Generator<[route: string, open: number]> {
    for (const [route, { open }] of this.#routes) yield [route, open]
  }
}

function countOpen(meter: Meter) {
  const counts = new OpenCounts()
  const end = meter.gauge({
    name: 'jingwei_edge_websockets',
    help: 'Open WebSockets, by route.',
    labelNames: ['route'],
    collect: (set) => {
      for (const [route, open] of counts) set({ route }, open)
    }
  })
  return { counts, end }
}

function refuse(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  done(isWebSocket(request.raw.headers.upgrade) ? new Refused() : undefined)
}
