/** Services on loopback: HTTP servers, and raw servers that misbehave as the test requires. */
import { once } from 'node:events'
import type { IncomingMessage, RequestListener } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo, Server, Socket } from 'node:net'
import net from 'node:net'
import type { Test } from 'tap'

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Responds with its name unless the test gives a listener; counts requests. */
export async function upstream(t: Test, name: string, listener?: RequestListener) {
  const requests: IncomingMessage[] = []
  const sockets = new Set<Socket>()
  const server = createServer((request, response) => {
    requests.push(request)
    if (listener) listener(request, response)
    else request.resume().on('end', () => response.end(name))
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  })
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
    for (const socket of sockets) socket.destroy()
  })
  return { url: await listen(server), server, requests, sockets }
}

/** Passes each connection to `onConnection`; `count` is the number of connections so far. */
export async function raw(t: Test, onConnection: (socket: Socket, count: number) => void) {
  const sockets = new Set<Socket>()
  let count = 0
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    onConnection(socket, ++count)
  })
  t.teardown(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return { url: await listen(server), server, sockets, count: () => count }
}

/** Accepts connections and requests, and never responds. */
export function silent(t: Test) {
  return raw(t, (socket) => socket.resume())
}

/** Resets every connection once a request begins. */
export function resetting(t: Test) {
  return raw(t, (socket) => socket.once('data', () => socket.resetAndDestroy()))
}

/** An address that refuses connections: the port of a server that has just closed. */
export async function refused(): Promise<string> {
  const server = net.createServer()
  const url = await listen(server)
  server.close()
  await once(server, 'close')
  return url
}

/**
 * `https` instances whose peer never shakes hands: a request to them stays without a connection for as long as the
 * test likes, on loopback.
 */
export async function connecting(t: Test) {
  const server = await silent(t)
  return { ...server, url: server.url.replace('http:', 'https:') }
}
