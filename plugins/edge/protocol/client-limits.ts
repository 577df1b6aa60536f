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
    const holder = held.acquire(networkOf(remoteAddress), most)
    if (holder === null) refuseConnection(server, socket, 'client-connections')
    else socket.once('close', () => holder.count--)
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
      if (most === false) return done()
      const holder = held.acquire(networkOf(clientAddressOf(request)), most)
      if (holder === null) {
        refused.inc()
        return done(new error())
      }
      let isHeld = true
      const release = () => {
        if (isHeld) holder.count--
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

/** Number of things that one client holds. */
interface Holder {
  count: number
}

/** Clients without anything in flight that are kept, to save the work for their next request. */
const mostIdle = 10_000

/** Counters by client. */
class Held {
  readonly #holders = new Map<string, Holder>()
  #hand = this.#holders.entries()

  /** Counts one more, which the caller takes back; returns null if the client already holds `most`. */
  acquire(client: string, most: number): Holder | null {
    let holder = this.#holders.get(client)
    if (holder === undefined) {
      holder = { count: 0 }
      this.#holders.set(client, holder)
      this.#forgetIdle()
    }
    if (holder.count >= most) return null
    holder.count++
    return holder
  }

  /** One client in, up to two out: no request pays for many. */
  #forgetIdle(): void {
    for (let i = 0; i < 2 && this.#holders.size > mostIdle; i++) {
      const { done, value } = this.#hand.next()
      if (done) this.#hand = this.#holders.entries()
      else if (value[1].count === 0) this.#holders.delete(value[0])
    }
  }
}
