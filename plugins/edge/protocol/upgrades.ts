import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { ServerResponse } from '../../node-http.ts'
import { Handshake, isResponding } from './handshake.ts'
import { passesWithoutHooks } from './inbound/caller.ts'
import { refusalOn } from './tls/index.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Set on a WebSocket handshake. `open` joins the client, after its 101, to the service. */
    upgrade: {
      open: (service: Duplex, onEnd: (bytesSent: number, error: Error | null) => void) => void
    } | null
  }
}

/** Time in which another listener may take a handshake. */
const claimMs = 1000

/** Arguments of an `upgrade` event. */
type Upgrade = readonly [raw: IncomingMessage, socket: Socket, head: Buffer]

/**
 * Routes handshakes like requests, and shares the server's `upgrade` events with other listeners, such as those of
 * @fastify/websocket and @fastify/http-proxy. Normally an event reaches all listeners, and two that respond to one handshake
 * end the process. Here, handshakes for configured routes belong to the gateway. Others go to the other listeners in order,
 * until one takes them, and are handled as requests if none does.
 */
export function receiveUpgrades(fastify: FastifyInstance): void {
  const { server } = fastify
  fastify.decorateRequest('upgrade', null)
  /** True while Fastify routes a handshake that another listener may take. */
  let isProbing = false
  let isOurs = true
  // The first hook of all: a handshake that no other listener takes passes the hooks a second time.
  fastify.addHook('onRequest', (request, reply, done) => {
    if (isProbing) {
      isProbing = false
      isOurs = request.routeOptions.config.route !== undefined
      if (!isOurs) return reply.hijack()
    }
    done()
  })

  // Node emits the event only if there is a listener.
  server.on('upgrade', ours)
  function ours(): void {}

  const { emit } = server
  server.emit = function (this: Server, event: string, ...args: unknown[]): boolean {
    if (event !== 'upgrade') return emit.call(this, event, ...args)
    receive(args as unknown as Upgrade)
    return true
  } as Server['emit']

  // With the options of the gateway's own listeners, Node emits 'upgrade' only for valid handshakes, and only after all
  // earlier responses on the connection have ended. For an embedding server and before Node 24.9, it emits the event for
  // every request with `Upgrade`. A request that is no handshake gets its response here, and the connection is closed.
  function receive(upgrade: Upgrade): void {
    const [raw, socket] = upgrade
    const others = server.listeners('upgrade').filter((listener) => listener !== ours)
    if (isResponding(raw)) socket.destroy()
    else {
      // Other listeners run no hooks, so handshakes that are refused for their certificate or caller must not reach them.
      const mayBeOthers = others.length > 0 && refusalOn(server, raw) === null && passesWithoutHooks(raw.socket)
      if (!route(upgrade, mayBeOthers)) offer(others as Listener[], upgrade)
    }
  }

  /** Routes a handshake. Returns false, and does nothing, if another listener may take it and it has no configured route. */
  function route([raw, socket, head]: Upgrade, mayBeOthers: boolean): boolean {
    const shake = new Handshake(raw, socket, head)
    const response = new ServerResponse(raw)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    isOurs = true
    isProbing = mayBeOthers
    fastify.routing(raw, response)
    isProbing = false
    if (!isOurs) {
      response.detachSocket(socket)
      return false
    }
    shake.begin()
    // Node's own `drain` listener was removed with the parser.
    socket.on('drain', () => response.emit('drain'))
    response.once('finish', () => {
      if (response.socket !== null) socket.destroySoon()
    })
    return true
  }

  function offer(others: readonly Listener[], upgrade: Upgrade): void {
    const [, socket] = upgrade
    // Without a listener, an error would end the process.
    socket.on('error', () => {})
    for (const listener of others) {
      try {
        listener.call(server, ...upgrade)
      } catch (err) {
        fastify.log.error({ err }, "an 'upgrade' listener of a plugin failed: connection closed")
        socket.destroy()
      }
      if (isTaken(socket)) return
    }
    // Some listeners take a handshake asynchronously.
    const timer = setTimeout(() => isTaken(socket) || route(upgrade, false), claimMs)
    socket.once('close', () => clearTimeout(timer))
  }
}

type Listener = (...upgrade: Upgrade) => void

/** Returns whether a listener has taken the connection: it is closed, has a response, or is being read. */
function isTaken(socket: Socket): boolean {
  const { _httpMessage: response } = socket as { _httpMessage?: unknown }
  return socket.destroyed || Boolean(response) || socket.listenerCount('data') > 0
}
