import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import { ServerResponse } from '../../node-http.ts'
import { Handshake, isAnswering } from './handshake.ts'
import { refusalOn } from './tls/index.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** On a WebSocket's handshake; `open` joins the client, who has its 101 by then, to the service. */
    upgrade: {
      open: (service: Duplex, onEnd: (bytesSent: number, error: Error | null) => void) => void
    } | null
  }
}

/** Time that another listener has to begin with a handshake. */
const claimMs = 1000

/** The arguments of an 'upgrade' event. */
type Upgrade = readonly [raw: IncomingMessage, socket: Socket, head: Buffer]

/**
 * Routes handshakes as requests, and shares the server's 'upgrade' events with other listeners, such as those of
 * @fastify/websocket and @fastify/http-proxy. An event reaches all of its listeners, and two that answer one handshake end
 * the process. Handshakes for configured routes are the gateway's. Others go to the other listeners, in their order, until
 * one has begun with it, and are answered as requests if none has.
 */
export function receiveUpgrades(fastify: FastifyInstance): void {
  const { server } = fastify
  fastify.decorateRequest('upgrade', null)
  /** Set while Fastify looks for the route of a handshake that may be another listener's. */
  let looking = false
  let isOurs = true
  // First of all hooks, since a handshake for another listener meets them once more.
  fastify.addHook('onRequest', (request, reply, done) => {
    if (looking) {
      looking = false
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

  // The listener's options see to it that only handshakes come here, and none too early. Those of an embedding server,
  // and Node before 24.9, do not: a request that is no handshake is then answered as one, and closed.
  function receive(upgrade: Upgrade): void {
    const [raw, socket] = upgrade
    const others = server.listeners('upgrade').filter((listener) => listener !== ours)
    if (isAnswering(raw)) socket.destroy()
    // Other listeners run no hooks: what these refuse by the connection alone must not get there.
    else if (!route(upgrade, others.length > 0 && refusalOn(server, raw) === null)) offer(others as Listener[], upgrade)
  }

  /** False, with nothing done, if the handshake may be another listener's and is for no configured route. */
  function route([raw, socket, head]: Upgrade, mayBeOthers: boolean): boolean {
    const shake = new Handshake(raw, socket, head)
    const response = new ServerResponse(raw)
    response.shouldKeepAlive = false
    response.assignSocket(socket)
    isOurs = true
    looking = mayBeOthers
    fastify.routing(raw, response)
    looking = false
    if (!isOurs) {
      response.detachSocket(socket)
      return false
    }
    shake.begin()
    // Node's own listener left with the parser.
    socket.on('drain', () => response.emit('drain'))
    response.once('finish', () => {
      if (response.socket !== null) socket.destroySoon()
    })
    return true
  }

  function offer(others: readonly Listener[], upgrade: Upgrade): void {
    const [, socket] = upgrade
    // Until one of them listens, an error would end the process.
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
    // Some look at the request first, in their own time.
    const timer = setTimeout(() => isTaken(socket) || route(upgrade, false), claimMs)
    socket.once('close', () => clearTimeout(timer))
  }
}

type Listener = (...upgrade: Upgrade) => void

/** Returns whether a listener has taken the connection: it is closed, has a response, or is read. */
function isTaken(socket: Socket): boolean {
  const { _httpMessage: response } = socket as { _httpMessage?: unknown }
  return socket.destroyed || Boolean(response) || socket.listenerCount('data') > 0
}
