// A service whose responses a client can check byte for byte, and that counts the connections which it accepts.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { accept, echo, Peer } from '../../helpers/edge/websocket.ts'

export interface CountingService {
  url: string
  /** Connections accepted, connections closed, and requests received, since the start. */
  dials(): number
  closes(): number
  hits(): number
  /** Sets the status of all further responses; 200 by default. */
  respond(status: number): void
}

const lengths = [0, 17, 1000, 5000, 70_000]

/** The body of the response to `GET ?n=`. */
export function bodyOf(n: number): Buffer {
  return Buffer.alloc(lengths[n % lengths.length]!, `${n}:`)
}

/** The whole body of the response to `GET ?events=`. */
export const eventsOf = (count: number): string =>
  Array.from({ length: count }, (_, n) => `id: ${n}\ndata: event ${n}\n\n`).join('')

export const sha256 = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')

async function handle(status: number, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { searchParams } = new URL(request.url!, 'http://any')
  const number = (name: string) => Number(searchParams.get(name) ?? 0)
  if (request.method === 'POST') {
    const hash = createHash('sha256')
    for await (const chunk of request) hash.update(chunk as Buffer)
    response.statusCode = status
    response.end(hash.digest('hex'))
    return
  }
  request.resume()
  if (searchParams.has('hold')) await sleep(number('hold'), null, { ref: false })
  response.statusCode = status
  if (searchParams.has('events')) {
    response.setHeader('content-type', 'text/event-stream')
    const count = number('events')
    for (let n = 0; n < count && !response.destroyed; n++) {
      response.write(`id: ${n}\ndata: event ${n}\n\n`)
      await sleep(number('every'), null, { ref: false })
    }
    response.end()
    return
  }
  response.end(bodyOf(number('n')))
}

export async function startCounting(t: Test): Promise<CountingService> {
  let dials = 0
  let hits = 0
  let status = 200
  const sockets = new Set<Socket>()
  const server: Server = createServer((request, response) => {
    hits++
    handle(status, request, response).catch(() => response.destroy())
  })
  // No idle timeout here: only the gateway's pool closes connections.
  server.keepAliveTimeout = 0
  server.requestTimeout = 0
  server.on('connection', (socket: Socket) => {
    dials++
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, firstBytes: Buffer) => {
    hits++
    socket.write(accept(request))
    socket.once('end', () => socket.end())
    echo(new Peer(socket, false, firstBytes))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(async () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    dials: () => dials,
    closes: () => dials - sockets.size,
    hits: () => hits,
    respond: (wanted) => {
      status = wanted
    }
  }
}
