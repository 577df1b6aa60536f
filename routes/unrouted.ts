/** Responses to requests that match no route. */
import type { IncomingMessage } from 'node:http'
import createError from '@fastify/error'
import type { FastifyBaseLogger, FastifyReply, FastifyRequest } from 'fastify'
import { didYouMean } from '../config/nearest.ts'
import type { RouteTable } from '../config/route-table.ts'
import type { Target } from './match.ts'
import { hostOf, pathUnder } from './match.ts'

// Not by `import`, which loads Node's own undici as well.
const { METHODS } = process.getBuiltinModule('node:http')

export const NotFound = createError('JW_NO_ROUTE', 'No route matches this request', 404)
const UnknownHost = createError('JW_UNKNOWN_HOST', '%s', 421)
const UnknownCall = createError('JW_NO_SERVICE', 'The call is not in the configuration of this sidecar', 503)
export const MethodNotAllowed = createError(
  'JW_METHOD_NOT_ALLOWED',
  'No route accepts the method %s for this path',
  405
)
const UnknownMethod = createError('JW_UNKNOWN_METHOD', 'Unknown request method', 501)

/** Message for a host that no route has, and, if an operator should see it, a line in the log. */
type UnknownHostMessage = (host: string, log: FastifyBaseLogger) => string

/** The message of a gateway, whose clients may be strangers. */
export const unknownHostMessage: UnknownHostMessage = () => 'No route or service has this host'

/** Most hosts that are logged, each once. A caller could send any number. */
const mostLogged = 100

/** Most names in a message. */
const mostNames = 10

/** Returns the messages of a sidecar: its callers are the programs of its own host, so that a wrong name is told and logged. */
export function unknownServiceMessage(services: readonly string[]): UnknownHostMessage {
  const messages = new Map<string, string>()
  const others = services.length > mostNames ? ', …' : ''
  const names = `; the hosts are ${services.slice(0, mostNames).join(', ')}${others}, each also with .mesh`
  return (host, log) => {
    const known = messages.get(host)
    if (known !== undefined) return known
    const [, name = host] = /^(.*?)(?:\.mesh)?\.?(?::\d+)?$/i.exec(host) ?? []
    const message = `${host}: no service of this sidecar has this host${didYouMean(name, services) || names}`
    if (messages.size < mostLogged) {
      messages.set(host, message)
      log.warn({ host }, message)
    }
    return message
  }
}

/** Returns a handler that responds 405 with `Allow` to a wrong method, 404 to a wrong path and, if configured, 421 to a wrong host. */
export function unrouted(
  tableFor: (request: IncomingMessage) => RouteTable<Target>,
  addressOf: (request: IncomingMessage) => string,
  prefix: string,
  unknownHost: 404 | 421,
  messageFor: UnknownHostMessage
) {
  return (request: FastifyRequest, reply: FastifyReply): void => {
    const { raw, log, server } = request
    const host = hostOf(raw)
    const table = tableFor(raw)
    if (unknownHost === 421 && !table.knows(host)) throw new UnknownHost(messageFor(host, log))
    const path = pathUnder(prefix, raw.url!)
    if (path === null) throw new NotFound()
    const method = raw.method!
    const address = table.readsAddress ? addressOf(raw) : ''
    const question = { method, host, path, headers: raw.headers, url: raw.url!, address }
    const allowed = table.methodsFor(question, ({ route }) => !server.hiddenRoutes?.get(route)?.(request))
    if (allowed.length === 0) throw new NotFound()
    reply.header('allow', allowed.join(', '))
    throw new MethodNotAllowed(asked(raw, allowed))
  }
}

/** Returns the method that no route has: that of the request, or the one for which a preflight asks. */
function asked({ method = '', headers }: IncomingMessage, allowed: readonly string[]): string {
  const requested = method === 'OPTIONS' && headers.origin && headers['access-control-request-method']
  if (!requested || allowed.includes(requested) || !METHODS.includes(requested)) return method
  return `${requested} of this preflight`
}

/** Responds to a call of the gateway that this sidecar does not know, since the two processes have different versions of the file. */
export function unknownCall(): never {
  throw new UnknownCall()
}

/** Responds 501 to methods that HTTP does not define (RFC 9110, 15.6.2). Only HTTP/2 gets here: Node's HTTP/1 parser refuses them. */
export function unknownMethod(): never {
  throw new UnknownMethod()
}
