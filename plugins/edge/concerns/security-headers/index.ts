/**
 * Headers by which browsers protect users, as helmet sets them: on responses of services, on errors and other responses of the
 * gateway, and, by the top-level options, on responses to requests that match no route or are refused before routing.
 *
 * Responses of services stay on their path: the headers are set when the header section arrives. An `onSend` hook sets those of
 * other responses.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Checked } from '../../../../config/concern.ts'
import { isComposed } from '../../../../config/targets.ts'
import { attach, edgeRouteOf, isHidden, isUnrouted } from '../../attach.ts'
import { markRawForm } from '../../bridge/body-encoder.ts'
import { edgeConcern } from '../../concern.ts'
import { setRefusalFields } from '../../protocol/refusals.ts'
import type { SecurityHeadersOptions } from './options.ts'
import { byDefault, headersOf, SecurityHeadersOrOff } from './options.ts'

declare module '../../../../config/schema.ts' {
  interface EdgePolicy {
    securityHeaders?: SecurityHeadersOptions | true | false
  }
}

type Done = (error: Error | null, payload?: unknown) => void

/** Sets the headers on the reply. `given`: those of the service; null for another response. */
type Apply = (request: FastifyRequest, reply: FastifyReply, given: IncomingHttpHeaders | null) => void

export default edgeConcern({
  name: 'securityHeaders',
  options: SecurityHeadersOrOff,
  noShadow: 'it refuses no request',
  protects: false,
  aliases: { 'helmet|secureHeaders|secHeaders': 'write securityHeaders: true' },
  innerAliases: {
    'hsts|stsSeconds|stsIncludeSubdomains|stsPreload|forceStsHeader':
      'write strictTransportSecurity: { maxAge: 365d, includeSubDomains: true, preload: false }',
    'frameguard|frameOptions|frameDeny|customFrameOptionsValue': 'write xFrameOptions: DENY, or SAMEORIGIN',
    'noSniff|contentTypeOptions|contentTypeNosniff': 'write xContentTypeOptions: nosniff',
    csp: 'write contentSecurityPolicy',
    'xssFilter|browserXssFilter': 'write xXssProtection',
    'dnsPrefetchControl|ieNoOpen|permittedCrossDomainPolicies':
      'write it with an "x" before it, as in the name of the header',
    xPoweredBy: 'write hidePoweredBy'
  },
  check,
  explain(given) {
    const options = given === true ? byDefault : given
    const { always, hsts } = headersOf(options)
    const names = [
      ...always.map(([name]) => name),
      ...(hsts === null ? [] : ['strict-transport-security (over HTTPS)'])
    ]
    return `sets ${options.override ? '' : 'where the service does not: '}${names.join(', ')}`
  },
  async plugin(fastify, { config }) {
    const { securityHeaders: top = false } = config.edge
    const ofTop = top === false ? null : applying(top)
    if (top !== false && ofTop !== null) {
      const { always, hsts } = headersOf(top === true ? byDefault : top)
      const secure = hsts === null ? always : [...always, ['strict-transport-security', hsts] as const]
      setRefusalFields(fastify.server, (isSecure) => (isSecure ? secure : always))
      const onUnrouted = markRawForm(
        (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
          if (isUnrouted(request)) ofTop(request, reply, null)
          done(null, payload)
        }
      )
      fastify.addHook(
        'onSend',
        markRawForm((request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done) => {
          // First, because Fastify makes an object for each use of `routeOptions`.
          if (request.is404) onUnrouted(request, reply, payload, done)
          else done(null, payload)
        })
      )
      fastify.addHook('onRoute', (route) => {
        if (route.config?.unrouted) attach(route, 'onSend', onUnrouted as never)
      })
    }
    return (given, { config: { route: configured } = {}, config }) => {
      const options = given === true ? byDefault : given
      const apply = applying(options)
      const route = edgeRouteOf(config)!
      const hasParts = configured !== undefined && isComposed(configured)
      const preParsing = (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
        // A composed route gets several responses; its own one passes the `onSend` hook.
        if (!hasParts) {
          const { onServiceResponse } = request
          request.onServiceResponse = (headers, status) => {
            const passed = onServiceResponse?.(headers, status) ?? headers
            apply(request, reply, passed)
            return options.hidePoweredBy ? withoutPoweredBy(passed) : passed
          }
        }
        done(null, payload)
      }
      const onSend = markRawForm((request: FastifyRequest, reply: FastifyReply, payload: unknown, done: Done): void => {
        // A hidden route has the response to a request that matches no route.
        if (isHidden(route, request)) ofTop?.(request, reply, null)
        else if (request.exchange?.hasResponded !== true) apply(request, reply, null)
        done(null, payload)
      })
      return { preParsing, onSend } as object
    }
  }
})

function applying(given: SecurityHeadersOptions | true): Apply {
  const options = given === true ? byDefault : given
  const { always, hsts } = headersOf(options)
  const { override } = options
  const set = (reply: FastifyReply, name: string, value: string, service: IncomingHttpHeaders | null): void => {
    if (override || (service?.[name] === undefined && !reply.hasHeader(name))) reply.header(name, value)
  }
  return (request, reply, service) => {
    for (const [name, value] of always) set(reply, name, value, service)
    // Browsers ignore it over plain HTTP (RFC 6797, 7.2).
    if (hsts !== null && request.protocol === 'https') set(reply, 'strict-transport-security', hsts, service)
  }
}

function withoutPoweredBy(headers: IncomingHttpHeaders): IncomingHttpHeaders {
  if (headers['x-powered-by'] === undefined) return headers
  const { 'x-powered-by': _none, ...others } = headers
  return others
}

function check(options: SecurityHeadersOptions | true, at: string, { report }: Checked): void {
  if (options === true || !report.sound(at)) return
  const { strictTransportSecurity: hsts } = options
  if (!hsts) return
  const place = `${at}/strictTransportSecurity`
  if (hsts.preload && (hsts.includeSubDomains === false || (hsts.maxAge ?? Infinity) < 365 * 24 * 3_600_000)) {
    report.fault(`${place}/preload`, 'browsers accept only hosts with includeSubDomains and a maxAge of at least 365d')
  }
}
