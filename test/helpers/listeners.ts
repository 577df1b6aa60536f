// A gateway with several listeners, and clients for HTTP/1.1, HTTP/2 and WebSocket.
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import type https from 'node:https'
import type net from 'node:net'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import type { Test } from 'tap'
import { start } from '../../app.ts'
import { loadConfig } from '../../plugins/config.ts'

/** A service that responds with the headers that it got, also to handshakes of WebSockets. */
export async function service(t: Test): Promise<string> {
  const server = http.createServer((request, response) => response.end(JSON.stringify(request.headers)))
  server.on('upgrade', (request, socket) => {
    socket.on('error', () => {})
    const seen = JSON.stringify(request.headers)
    socket.end(
      `HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\nx-seen: ${seen}\r\n\r\n`
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => server.close())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** A plugin that reports the listener and Fastify's view of the client in a response header. */
const viewPlugin = `
export default async (fastify) => {
  fastify.addHook('onRequest', async (request, reply) => {
    const { listener, ip, ips, host, protocol, trusted } = request
    request.raw.headers['x-client-view'] = 'no'
    reply.header('x-client-view', JSON.stringify({ listener, ip, ips, host, protocol, trusted }))
  })
}
export const fp = true
`

export interface Options {
  readonly listen: object
  readonly [section: string]: unknown
}

export async function running(t: Test, folder: string, sections: Options) {
  const file = join(folder, 'gateway.yaml')
  writeFileSync(join(folder, 'client-view.mjs'), viewPlugin)
  const write = (sections: Options) => writeFileSync(file, JSON.stringify({ admin: { port: 0 }, ...sections }))
  write(sections)
  const runtime = await start(await loadConfig(file))
  t.teardown(() => runtime.close())
  const portOf = (name: string) =>
    (runtime.listeners.find((listener) => listener.name === name)!.address as AddressInfo).port
  const reload = (sections: Options) => {
    write(sections)
    return runtime.reload('test')
  }
  const metrics = async () => {
    const { port } = runtime.admin!.address as AddressInfo
    return (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  }
  return { runtime, portOf, reload, metrics }
}

export const drain = { delay: 0, timeout: '1s' }
export const routesTo = (url: string) => ({
  services: { any: { instances: [url] } },
  routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
  plugins: [{ path: './client-view.mjs' }]
})

export interface ReceivedResponse {
  readonly status: number
  readonly headers: http.IncomingHttpHeaders
  readonly text: string
}

export async function ask(
  options: https.RequestOptions,
  module: typeof http | typeof https = http
): Promise<ReceivedResponse> {
  const request = module.request({ host: '127.0.0.1', agent: false, ...options } as http.RequestOptions).end()
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  const text = Buffer.concat(await response.toArray()).toString()
  return { status: response.statusCode!, headers: response.headers, text }
}

export async function ask2(port: number, ca: string, headers: http2.OutgoingHttpHeaders): Promise<ReceivedResponse> {
  const session = http2.connect(`https://localhost:${port}`, { ca })
  try {
    const stream = session.request({ ':path': '/', ...headers })
    const [fields] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
    const text = Buffer.concat(await stream.toArray()).toString()
    return { status: fields[':status'] as unknown as number, headers: fields as http.IncomingHttpHeaders, text }
  } finally {
    session.close()
  }
}

/** Sends a handshake; returns the header section of the response. */
export async function shake(
  port: number,
  headers: Record<string, string>,
  path = '/'
): Promise<http.IncomingHttpHeaders> {
  const request = http.request({
    host: '127.0.0.1',
    port,
    path,
    agent: false,
    headers: {
      connection: 'upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA==',
      ...headers
    }
  })
  request.end()
  const [response, socket] = (await once(request, 'upgrade')) as [http.IncomingMessage, net.Socket]
  socket.destroy()
  return response.headers
}

export const clientView = ({ headers }: ReceivedResponse) =>
  JSON.parse(headers['x-client-view'] as string) as Record<string, unknown>
export const seen = ({ text }: ReceivedResponse) => JSON.parse(text) as http.IncomingHttpHeaders
