import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Server } from 'node:net'
import { Socket } from 'node:net'
import { isResponding } from './handshake.ts'
import { reportRefusal } from './refusals.ts'

/** Time for the client to read its response. */
const lingerMs = 1000

/** Responds to CONNECT with 501. Without this listener, Node closes HTTP/1 connections without a response. */
export function refuseConnect(this: Server, request: IncomingMessage, client: Socket | ServerResponse): void {
  reportRefusal(this, { reason: 'connect', status: 501, ip: request.socket.remoteAddress })
  if (!(client instanceof Socket)) {
    client.writeHead(501).end() // HTTP/2, where CONNECT is an ordinary request
    return
  }
  client.on('error', () => {})
  if (isResponding(request)) {
    client.destroy() // the status line would be read as part of the response that is being sent
    return
  }
  client.resume()
  const linger = setTimeout(() => client.destroy(), lingerMs)
  client.once('close', () => clearTimeout(linger))
  client.end('HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n', () => client.destroy())
}
