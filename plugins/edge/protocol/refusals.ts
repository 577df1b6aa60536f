import type { Server, Socket } from 'node:net'
import { unmapped } from '../../http-syntax.ts'
import { listenerNameOf, listenerOfSocket } from '../../listener-of.ts'
import { STATUS_CODES } from '../../node-http.ts'

/** Reasons for refusing a connection or request before any hook. They are label values of a metric, so the list is closed. */
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
  /** Absent if the connection was closed without a response. */
  readonly status?: number
  readonly ip: string | undefined
  /** Id of the request, if Fastify has one, although no hook runs. */
  readonly requestId?: string
  /** Name of the listener, if it is not that of the reporting server. */
  readonly listener?: string | undefined
  /** Code of the parser's error. */
  readonly code?: string | undefined
  /** Server name that the client sent in its handshake. */
  readonly serverName?: string | undefined
}

const event = 'jingwei.refused'

/** Reports a refusal that meets no hook, for the access log and the metrics. */
export function reportRefusal(server: Server, refusal: Refusal): void {
  const listener = refusal.listener ?? listenerNameOf(server)
  server.emit(event, { ...refusal, listener, ip: unmapped(refusal.ip) })
}

export function onRefused(server: Server, listener: (refusal: Refusal) => void): void {
  server.on(event, listener)
}

type Fields = readonly (readonly [name: string, value: string])[]

/** By server: further header fields of responses to requests that meet no hook. */
const fieldsOf = new WeakMap<Server, (isSecure: boolean) => Fields>()

/** Sets further header fields of responses to requests that meet no hook: printable ASCII. */
export function setRefusalFields(server: Server, fields: (isSecure: boolean) => Fields): void {
  fieldsOf.set(server, fields)
}

export const refusalFields = (server: Server, isSecure: boolean): Fields => fieldsOf.get(server)?.(isSecure) ?? []

/** Returns the body of the response to such a request, in Fastify's error shape. */
export function refusalBody(status: number, message = STATUS_CODES[status]): string {
  return JSON.stringify({ statusCode: status, error: STATUS_CODES[status], message })
}

/** Closes a connection that exceeds a limit. */
export function refuseConnection(server: Server, socket: Socket, reason: Refusal['reason']): void {
  reportRefusal(server, { reason, ip: socket.remoteAddress, listener: listenerOfSocket(socket) })
  socket.destroy()
}
