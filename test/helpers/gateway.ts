// A whole gateway on a free port, services behind it, and a client that shows every byte.
import type { IncomingMessage, RequestListener } from 'node:http'
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import net from 'node:net'
import { Writable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import fp from 'fastify-plugin'
import { pino } from 'pino'
import type { Test } from 'tap'
import { build, gateway } from '../../app.ts'
import type { Config } from '../../config/schema.ts'
import { parseConfig } from '../../plugins/config.ts'
import { serverOptions } from '../../plugins/edge/protocol/listener.ts'
import { serializers } from '../../plugins/operations/logging.ts'

export interface RunningGateway {
  url: string
  port: number
  server: FastifyInstance
  /** Lines of its log, if `log` was set. */
  log: Record<string, unknown>[]
  close: () => Promise<void>
}

export interface GatewayOptions {
  /** Collects log lines in `log`. */
  log?: boolean
  /** Address to listen on; IPv4 loopback by default. */
  host?: string
  /** Called before the server is ready: for hooks that a user's plugin would add. */
  before?: (server: FastifyInstance) => void
}

/** The configuration as the loader completes it, from an object or YAML text (JSON is YAML). */
export function configOf(config: object | string): Config {
  const text = typeof config === 'string' ? config : JSON.stringify({ admin: false, ...config })
  return parseConfig(text, `${import.meta.dirname}/gateway.yaml`, {})
}

export const startGateway = (config: object | string, options: GatewayOptions = {}): Promise<RunningGateway> =>
  startWith(configOf(config), options)

/** As `startGateway`, with a configuration that the loader has completed, such as one with concerns of users. */
export async function startWith(parsed: Config, options: GatewayOptions = {}): Promise<RunningGateway> {
  const log: Record<string, unknown>[] = []
  const server = options.log ? logged(parsed, log) : build(parsed, { logger: false })
  options.before?.(server)
  await server.listen({ host: options.host ?? '127.0.0.1', port: 0 })
  const { port } = server.server.address() as AddressInfo
  const scheme = parsed.listen.tls === undefined ? 'http' : 'https'
  return { url: `${scheme}://127.0.0.1:${port}`, port, server, log, close: () => server.close() }
}

/** A gateway in front of one service; closed when the test ends. */
export async function gatewayBefore(t: Test, url: string, more: object = {}, options: GatewayOptions = {}) {
  const services = { any: { instances: [url] } }
  const routes = [{ name: 'all', match: { path: '/' }, service: 'any' }]
  const started = await startGateway({ services, routes, ...more }, options)
  t.teardown(started.close)
  return started
}

/** As `build`, with another destination of the log. */
function logged(config: Config, lines: Record<string, unknown>[]): FastifyInstance {
  const stream = new Writable({
    write(chunk: Buffer, _encoding, done) {
      const text = chunk.toString()
      const line = JSON.parse(text) as Record<string, unknown>
      // JSON.parse drops a repeated field, and so do some collectors of logs.
      if (JSON.stringify(line).length < text.trimEnd().length) throw new Error(`a field occurs twice: ${text}`)
      lines.push(line)
      done()
    }
  })
  const loggerInstance = pino({ level: 'info', serializers }, stream)
  const server = Fastify({ ...(serverOptions(config) as object), loggerInstance }) as unknown as FastifyInstance
  // fp() marks the function that it gets: the wrapper, not the exported gateway.
  server.register(
    fp((fastify: FastifyInstance, options: Config) => gateway(fastify, options)),
    config
  )
  return server
}

export interface RunningService {
  url: string
  port: number
  close: () => Promise<void>
}

/** An HTTP service; `handler` gets its requests. `pair`: its certificate and key; then it speaks TLS. */
export async function startService(
  handler: RequestListener,
  pair?: { readonly cert: string; readonly key: string }
): Promise<RunningService> {
  const server = pair === undefined ? http.createServer(handler) : https.createServer(pair, handler)
  server.requestTimeout = 0
  const scheme = pair === undefined ? 'http' : 'https'
  return listening(server, () => server.closeAllConnections(), scheme)
}

/** A TCP service: `handler` gets each connection. */
export async function startRawService(handler: (socket: Socket) => void): Promise<RunningService> {
  const sockets = new Set<Socket>()
  const server = net.createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
    handler(socket)
  })
  return listening(server, () => {
    for (const socket of sockets) socket.destroy()
  })
}

/** Responds with these bytes, in order, each after a whole header section; the last ones repeat. */
export function responding(...responses: string[]): (socket: Socket) => void {
  let sent = 0
  return (socket) => {
    let seen = ''
    socket.on('data', (chunk: Buffer) => {
      seen += chunk.toString('latin1')
      if (!seen.includes('\r\n\r\n')) return
      seen = ''
      socket.write(responses[Math.min(sent++, responses.length - 1)] ?? '', 'latin1')
    })
  }
}

async function listening(server: net.Server, closeConnections: () => void, scheme = 'http'): Promise<RunningService> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const close = () =>
    new Promise<void>((resolve) => {
      server.close(() => resolve())
      closeConnections()
    })
  return { url: `${scheme}://127.0.0.1:${port}`, port, close }
}

/** A request as it arrived at the service. */
export interface Seen {
  method: string
  url: string
  headers: IncomingMessage['headers']
  rawHeaders: string[]
  body: string
}

/** A service that responds with the request that it received. */
export function startEcho(): Promise<RunningService> {
  return startService((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { method, url, headers, rawHeaders } = request
      response.setHeader('content-type', 'application/json')
      response.end(JSON.stringify({ method, url, headers, rawHeaders, body: Buffer.concat(chunks).toString('latin1') }))
    })
  })
}

export interface Client {
  socket: Socket
  /** All received bytes, one character a byte. */
  received: () => string
  send: (text: string | Buffer) => void
  /** Resolves when the received text contains all of these parts. */
  until: (...parts: string[]) => Promise<string>
  /** Resolves with all received bytes when the connection is closed; `reset`: by a reset. */
  closed: Promise<{ text: string; reset: boolean }>
}

/** A TCP client that sends and shows bytes. */
export function connect(port: number, first?: string | Buffer): Client {
  let text = ''
  let over = false
  let reset = false
  const socket = net.connect(port, '127.0.0.1')
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1')
  })
  socket.on('error', () => {
    reset = true
  })
  const closed = new Promise<{ text: string; reset: boolean }>((resolve) => {
    socket.once('close', () => {
      over = true
      resolve({ text, reset })
    })
  })
  const send = (bytes: string | Buffer) => void socket.write(bytes, 'latin1' as never)
  if (first !== undefined) send(first)
  const until = async (...parts: string[]) => {
    while (!parts.every((part) => text.includes(part))) {
      if (over) throw new Error(`closed before ${JSON.stringify(parts)} came: ${JSON.stringify(text)}`)
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    return text
  }
  return { socket, received: () => text, send, until, closed }
}

/** Sends bytes and returns all bytes received until the peer closes. */
export async function raw(port: number, bytes: string | Buffer): Promise<string> {
  return (await connect(port, bytes).closed).text
}

/** Sends one request with `Connection: close`; returns status, headers and the body without its chunk framing. */
export async function get(port: number, target: string, headers: string[] = [], method = 'GET') {
  const lines = [`${method} ${target} HTTP/1.1`, ...(headers.some((h) => /^host:/i.test(h)) ? [] : ['Host: h'])]
  return parse(await raw(port, `${[...lines, ...headers, 'Connection: close'].join('\r\n')}\r\n\r\n`))
}

/** As `get`, for the response of an echo service. */
export async function ask(port: number, target: string, headers: string[] = [], method = 'GET'): Promise<Seen> {
  const { status, body } = await get(port, target, headers, method)
  if (status !== 200) throw new Error(`${method} ${target}: ${status} ${body}`)
  return JSON.parse(Buffer.from(body, 'latin1').toString()) as Seen
}

export interface ParsedResponse {
  status: number
  /** Names in lower case; several of a name joined by a line feed. */
  headers: Record<string, string>
  lines: string[]
  body: string
}

export function parse(text: string): ParsedResponse {
  const end = text.indexOf('\r\n\r\n')
  const [start = '', ...lines] = text.slice(0, end).split('\r\n')
  const headers: Record<string, string> = {}
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    const value = line.slice(colon + 1).trim()
    headers[name] = headers[name] === undefined ? value : `${headers[name]}\n${value}`
  }
  return { status: Number(start.split(' ')[1]), headers, lines, body: unchunk(text.slice(end + 4), headers) }
}

function unchunk(text: string, headers: Record<string, string>): string {
  if (headers['transfer-encoding'] !== 'chunked') return text
  let body = ''
  for (let at = 0; ; ) {
    const line = text.indexOf('\r\n', at)
    const size = Number.parseInt(text.slice(at, line), 16)
    if (!(size > 0)) return body
    body += text.slice(line + 2, line + 2 + size)
    at = line + 2 + size + 2
  }
}
