import type { Server, Socket } from 'node:net'
import createError from '@fastify/error'
import fp from 'fastify-plugin'
import type { Config } from '../../../config/schema.ts'
import stores from '../../keep-stores.ts'
import { meterOf } from '../concern.ts'
import { clientAddressOf, networkOf } from './client-address.ts'
import { trustedPeers } from './forwarding-headers.ts'
import { isHandshake } from './handshake.ts'
import { byListener } from './peers.ts'
import { refuseConnection } from './refusals.ts'

const TooManyRequests = createError('JW_CLIENT_REQUESTS', 'This client has too many requests in flight', 429)
const TooManyWebSockets = createError('JW_CLIENT_WEBSOCKETS', 'This client has too many WebSockets open', 429)

/**
 * Limits the connections of one peer, so that no client takes all connections of the listener. Connections of a trusted
 * proxy, which serves many clients, are not counted.
 */
export function boundConnections(server: Server, listen: () => Config['listen']): void {
  const held = new Held()
  server.on('connection', (socket: Socket) => {
    const { limits, trustProxy } = listen()
    const most = limits.perClient.connections
    const { remoteAddress } = socket
    // Without an address, the client has disconnected.
    if (most === false || remoteAddress === undefined || trustedBy(trustProxy)(remoteAddress)) return
    const client = networkOf(remoteAddress)
    if (held.acquire(client, most)) socket.once('close', () => held.release(client))
    else refuseConnection(server, socket, 'client-connections')
  })
}

/** Tests for trusted peers, by the configured list. */
const tests = new WeakMap<readonly string[], (address: string) => boolean>()

function trustedBy(ranges: readonly string[]): (address: string) => boolean {
  let isTrusted = tests.get(ranges)
  if (isTrusted === undefined) {
    isTrusted = trustedPeers(ranges)
    tests.set(ranges, isTrusted)
  }
  return isTrusted
}

/**
 * Limits the requests in flight and WebSockets of one client, so that no client takes all capacity of a service. A client
 * is identified by its address (see `trustProxy`).
 */
export default fp<Config>(
  async (fastify, config) => {
    const refused = meterOf(fastify).counter({
      name: 'jingwei_edge_client_limited_total',
      help: 'Requests and WebSockets refused by a limit of listen.limits.perClient, by limit.',
      labelNames: ['limit']
    })

    await fastify.register(stores, {})
    // In a store, since requests in flight and WebSockets continue after a reload.
    const heldBy = (limit: string, { name }: Config['listen']) =>
      fastify.stores.claim('jingwei.client-limits', [limit, name], () => new Held())
    const counts = { requests: refused.labels('requests'), websockets: refused.labels('websockets') }
    const kindsOf = byListener(config, (listen) => {
      const { requests, websockets } = listen.limits.perClient
      return {
        requests: {
          most: requests,
          held: heldBy('requests', listen),
          error: TooManyRequests,
          refused: counts.requests
        },
        websockets: {
          most: websockets,
          held: heldBy('websockets', listen),
          error: TooManyWebSockets,
          refused: counts.websockets
        }
      }
    })
    const areOff = ({ limits: { perClient } }: Config['listen']) =>
      perClient.requests === false && perClient.websockets === false
    if (config.listeners.every(areOff)) return
    fastify.addHook('onRequest', (request, reply, done) => {
      const isWebSocket = isHandshake(request.raw)
      const kinds = kindsOf(request.raw)
      const { most, held, error, refused } = isWebSocket ? kinds.websockets : kinds.requests
      const client = networkOf(clientAddressOf(request))
      if (most !== false && !held.acquire(client, most)) {
        refused.inc()
        return done(new error())
      }
      let isHeld = most !== false
      const release = () => {
        if (isHeld) held.release(client)
        isHeld = false
      }
      reply.raw.once('close', release)
      // The response to a WebSocket emits `finish` when its tunnel has ended, and no `close`.
      if (isWebSocket) reply.raw.once('finish', release)
      done()
    })
  },
  { name: 'jingwei-client-limits', fastify: '5.x' }
)

/** Counters by client. A client that holds nothing has no entry. */
class Held {
  readonly #counts = new Map<string, number>()

  /** Counts one more; returns false if the client already holds `most`. */
  acquire(client: string, most: number): boolean {
    const count = this.#counts.get(client) ?? 0
    if (count >= most) return false
    this.#counts.set(client, count + 1)
    return true
  }

  release(client: string): void {
    const count = this.#counts.get(client)! - 1
    if (count === 0) this.#counts.delete(client)
    else this.#counts.set(client, count)
  }
}
