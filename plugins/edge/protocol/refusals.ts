import type { Server, Socket } from 'node:net'
import { unmapped } from '../../http-syntax.ts'
import { listenerNameOf, listenerOfSocket } from '../../listener-of.ts'
import { STATUS_CODES } from '../../node-http.ts'

/** Why a connection or request was refused before it met any hook. Labels of a metric: a short list, and no more. */
export const reasons = [
  'malformed',
  'head-too-large',
  'too-slow',
  'bad-path',
  'expectation',
  'connect',
  'connections',
  'client-connections',
  'pipelining',
  'descriptors',
  'plain-http',
  'tls-handshake',
  'server-name',
  'client-certificate'
] as const

export interface Refusal {
  readonly reason: (typeof reasons)[number]
  /** None where the connection was closed without a word. */
  readonly status?: number
  readonly ip: string | undefined
  /** Of a request that Fastify knows, though no hook sees it. */
  readonly requestId?: string
  /** Name of the listener, if the server that tells does not have it. */
  readonly listener?: string | undefined
  /** Code of the parser's error. */
  readonly code?: string | undefined
  /** The name that a client has asked for in its handshake. */
  readonly serverName?: string | undefined
}

const event = 'jingwei.refused'

/** Tells of a refusal that no hook sees, as there is no request that Fastify knows. */
export function tellRefused(server: Server, refusal: Refusal): void {
  const listener = refusal.listener ?? listenerNameOf(server)
  server.emit(event, { ...refusal, listener, ip: unmapped(refusal.ip) })
}

export function onRefused(server: Server, listener: (refusal: Refusal) => void): void {
  server.on(event, listener)
}

/** The answer to such a request, in Fastify's error shape. */
export function refusalBody(status: number, message = STATUS_CODES[status]): string {
  return JSON.stringify({ statusCode: status, error: STATUS_CODES[status], message })
}

/** Closes a connection that is over a limit. */
export function refuseConnection(server: Server, socket: Socket, reason: Refusal['reason']): void {
  tellRefused(server, { reason, ip: socket.remoteAddress, listener: listenerOfSocket(socket) })
  socket.destroy()
}
