import type { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'

/** Tells who asks for a tunnel that there are none; without a listener, Node closes HTTP/1 without a word. */
export function refuseTunnel(_request: IncomingMessage, client: Socket | ServerResponse): void {
  if (!(client instanceof Socket)) {
    client.writeHead(501).end() // HTTP/2, where it is a request like others
    return
  }
  client.on('error', () => {})
  client.resume()
  client.end('HTTP/1.1 501 Not Implemented\r\ncontent-length: 0\r\nconnection: close\r\n\r\n', () => client.destroy())
}
