/** Responses to requests that match no route. */
import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { RouteTable } from '../config/route-table.ts'
import { hostOf, pathUnder } from './match.ts'

const NotFound = createError('JW_NO_ROUTE', 'No route matches this request', 404)
const UnknownHost = createError('JW_UNKNOWN_HOST', 'No route or service has this host', 421)
const MethodNotAllowed = createError('JW_METHOD_NOT_ALLOWED', 'No route accepts the method %s for this path', 405)
const UnknownMethod = createError('JW_UNKNOWN_METHOD', 'Unknown request method', 501)

/** Returns a handler that responds 405 with `Allow` to a wrong method, 404 to a wrong path and, if configured, 421 to a wrong host. */
export function unrouted(
  tableFor: (request: IncomingMessage) => RouteTable<unknown>,
  prefix: string,
  unknownHost: 404 | 421
) {
  return ({ raw }: FastifyRequest, reply: FastifyReply): void => {
    const host = hostOf(raw)
    const table = tableFor(raw)
    if (unknownHost === 421 && !table.knows(host)) throw new UnknownHost()
    const path = pathUnder(prefix, raw.url!)
    if (path === null) throw new NotFound()
    const method = raw.method!
    const allowed = table.methodsFor({ method, host, path, headers: raw.headers })
    if (allowed.length === 0) throw new NotFound()
    reply.header('allow', allowed.join(', '))
    throw new MethodNotAllowed(method)
  }
}

/** Responds 501 to methods that HTTP does not define (RFC 9110, 15.6.2). Only HTTP/2 gets here: Node's HTTP/1 parser refuses them. */
export function unknownMethod(): never {
  throw new UnknownMethod()
}
