import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Server } from 'node:net'
import { Socket } from 'node:net'
import { isAnswering } from './handshake.ts'
import { tellRefused } from './refusals.ts'

/** Time that such a client has for reading its response. */
const lingerMs = 1000

/** Tells who asks for a tunnel that there are none; without a listener, Node closes HTTP/1 without a word. */
export function refuseTunnel(this: Server, request: IncomingMessage, client: Socket | ServerResponse): void {
  tellRefused(this, { reason: 'connect', status: 501, ip: request.socket.remoteAddress })
  if (!(client instanceof Socket)) {
    client.writeHead(501).end() // HTTP/2, where it is a request like others
    return
  }
  client.on('error', () => {})
  if (isAnswering(request)) {
    client.destroy() // whose answer another status line would pass for a part of
    return
  }
  client.resume()
  const linger = setTimeout(() => client.destroy(), lingerMs)
  client.once('close', () => clearTimeout(linger))
  client.end('HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n', () => client.destroy())
}
