import createError from '@fastify/error'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { hostKey, MAX_NAME, writtenHostKey } from '../../../config/host-name.ts'
import type { Config } from '../../../config/schema.ts'
import { listeningOf } from '../../listener-of.ts'
import { NotFound } from '../errors.ts'
import { markLastResponse } from './last-response.ts'
import { byListener, Peers } from './peers.ts'
import { hasBody } from './request-body.ts'
import { isSecure } from './secure.ts'

const UnknownHost = createError('JW_UNKNOWN_HOST', 'This gateway does not serve the host', 421)

/** Path of ACME challenges (RFC 8555, 8.3). Certificate authorities request it by http. */
const acme = '/.well-known/acme-challenge'

/** Default port of https. */
const standardPort = 443

/**
 * Redirects from http to https on listeners with `redirect`. The host must be named by a route or a certificate, so that no
 * forged `Host` can send a client, or a cache in between, to another host.
 */
export default fp<Config>(
  async (fastify, config) => {
    if (!config.listeners.some(({ redirect }) => redirect !== undefined)) return
    const { listen, listeners } = config
    const hosts = new RoutedHosts(config)
    const isServed = (host: string) => hosts.has(hostKey(host)) || fastify.hasCertificate(host)
    const peers = new Peers(config)
    const secure = listeners.find(({ tls, path }) => tls !== undefined && path === undefined)
    /** Returns the port of the https listener, also if the system has chosen it. */
    const boundPort = () => {
      const server = listeningOf(fastify.server).find(({ name }) => name === secure?.name)?.server
      const address = server?.address()
      return typeof address === 'object' && address !== null ? address.port : secure?.port
    }
    const ruleOf = byListener(config, ({ redirect }) => {
      if (redirect === undefined) return null
      const { port, status } = redirect === 'https' ? { port: undefined, status: 308 as const } : redirect
      return { port: () => port ?? boundPort() ?? standardPort, status }
    })
    fastify.addHook('onRequest', (request, reply, done) => {
      const rule = ruleOf(request.raw)
      const { raw } = request
      if (rule === null || isSecure(raw, peers) || isChallenge(request)) return done()
      const host = (raw.headers[':authority'] as string | undefined) ?? raw.headers.host ?? ''
      if (!isServed(host)) return done(listen.unknownHost === 421 ? new UnknownHost() : new NotFound())
      redirect(request, reply, rule.status, `https://${authority(host, rule.port())}${raw.url}`)
    })
  },
  { name: 'jingwei-redirect', fastify: '5.x' }
)

function redirect(request: FastifyRequest, reply: FastifyReply, status: 301 | 308, location: string): void {
  const { raw } = request
  // The unread body must not be parsed as the next request.
  if (hasBody(raw) && raw.httpVersionMajor === 1) {
    markLastResponse(raw)
    reply.header('connection', 'close')
  }
  request.isOwnResponse = true
  // After a 301, clients turn a POST into a GET.
  const isSafe = raw.method === 'GET' || raw.method === 'HEAD'
  reply
    .code(isSafe ? status : 308)
    .header('location', location)
    .send()
}

/** Returns whether the request's route is below the challenge path. A route for all paths does not count. */
function isChallenge({ routeOptions: { url } }: FastifyRequest): boolean {
  return url?.startsWith(acme) === true
}

function authority(host: string, port: number): string {
  const colon = host.lastIndexOf(':')
  const name = colon > host.lastIndexOf(']') ? host.slice(0, colon) : host
  return port === standardPort ? name : `${name}:${port}`
}

/** Hosts of routes, exact and with a wildcard. */
class RoutedHosts {
  readonly #exact = new Set<string>()
  readonly #wildcards = new Set<string>()

  constructor({ routes }: Pick<Config, 'routes'>) {
    for (const host of routes.flatMap(({ match }) => match.hosts ?? [])) {
      const key = writtenHostKey(host)
      if (key !== null) (host.startsWith('*.') ? this.#wildcards : this.#exact).add(key)
    }
  }

  has(key: string): boolean {
    if (this.#exact.has(key)) return true
    if (this.#wildcards.size === 0 || key.length > MAX_NAME) return false
    for (let dot = key.indexOf('.', 1); dot !== -1; dot = key.indexOf('.', dot + 1)) {
      if (this.#wildcards.has(key.slice(dot + 1))) return true
    }
    return false
  }
}
