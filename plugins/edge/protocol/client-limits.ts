import type { Socket } from 'node:net'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import { meterOf } from '../concern.ts'
import { networkOf } from './client-address.ts'
import { trustedPeers } from './forwarding-headers.ts'
import { isHandshake } from './handshake.ts'
import { refuseConnection } from './refusals.ts'

const TooManyRequests = createError('JW_CLIENT_REQUESTS', 'Too many requests of this client are in flight', 429)
const TooManyWebSockets = createError('JW_CLIENT_WEBSOCKETS', 'This client has too many WebSockets open', 429)

/**
 * Bounds what one client holds at a time: connections, requests in flight and WebSockets, so that no client takes a
 * service or the listener from all others. Requests go by the client's address as `trustProxy` has it. Connections go by
 * the peer's, unless that is a trusted proxy, which brings connections for many.
 */
export default fp<Config>(
  async (fastify, { listen }) => {
    const { connections, requests, websockets } = listen.limits.perClient
    const refused = meterOf(fastify).counter({
      name: 'jingwei_edge_client_limited_total',
      help: 'Requests and WebSockets refused by a limit per client, by limit.',
      labelNames: ['limit']
    })

    if (connections !== false) boundConnections(connections)

    function boundConnections(most: number): void {
      const { server } = fastify
      const isTrusted = trustedPeers(listen.trustProxy)
      const held = new Held(most)
      server.on('connection', (socket: Socket) => {
        const { remoteAddress } = socket
        // Without one the client has left.
        if (remoteAddress === undefined || isTrusted(remoteAddress)) return
        const client = networkOf(remoteAddress)
        if (held.take(client)) socket.once('close', () => held.release(client))
        else refuseConnection(server, socket, 'client-connections')
      })
    }

    const kinds = {
      requests: { held: new Held(requests), error: TooManyRequests, refused: refused.labels('requests') },
      websockets: { held: new Held(websockets), error: TooManyWebSockets, refused: refused.labels('websockets') }
    }
    if (requests === false && websockets === false) return
    fastify.addHook('onRequest', (request, reply, done) => {
      const isWebSocket = isHandshake(request.raw)
      const { held, error, refused } = isWebSocket ? kinds.websockets : kinds.requests
      // A client that left during an earlier hook has no address.
      const client = networkOf(request.ip ?? '')
      if (!held.take(client)) {
        refused.inc()
        return done(new error())
      }
      let isHeld = true
      const release = () => {
        if (isHeld) held.release(client)
        isHeld = false
      }
      reply.raw.once('close', release)
      // The response to a WebSocket is finished when its tunnel has ended, and has no connection to close by then.
      if (isWebSocket) reply.raw.once('finish', release)
      done()
    })
  },
  { name: 'jingwei-client-limits', fastify: '5.x' }
)

/** Counts of what clients hold. Clients that hold nothing take no memory. */
class Held {
  readonly #most: number
  readonly #counts = new Map<string, number>()

  constructor(most: number | false) {
    this.#most = most === false ? Number.POSITIVE_INFINITY : most
  }

  /** False if the client holds as much as it may. */
  take(client: string): boolean {
    const count = this.#counts.get(client) ?? 0
    if (count >= this.#most) return false
    this.#counts.set(client, count + 1)
    return true
  }

  release(client: string): void {
    const count = this.#counts.get(client)! - 1
    if (count === 0) this.#counts.delete(client)
    else this.#counts.set(client, count)
  }
}
