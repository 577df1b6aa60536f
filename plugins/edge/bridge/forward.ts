/**
 * The bridge: the one place of the edge that touches the seam. It hands the client's request to the
 * dispatcher and writes the answer to the client's socket as it comes, without Fastify's reply in between.
 */
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import type { Config, RouteConfig } from '../../../config/schema.ts'
import type { CallerOptions, ServiceOrigin } from '../../seam.ts'
import { captureContext, emitInContext, SEALED } from '../async-context.ts'
import { attach } from '../attach.ts'
import { LoopDetected } from '../errors.ts'
import {
  appendForwarding,
  believedHeaders,
  forwardingHeaders,
  prefixSoFar,
  trustedPeers
} from '../protocol/forwarding-headers.ts'
import { announced, hopByHop, nominated, notInTrailers, takesTrailers } from '../protocol/headers.ts'
import { Body, hasBody, hasUnknownLength } from '../protocol/request-body.ts'
import { targetPath } from '../protocol/target-path.ts'
import { Exchange } from './exchange.ts'
import { HeaderTrust } from './header-trust.ts'
import { forwardedPrefix, relocation } from './location.ts'
import type { HeaderFilter } from './upstream-headers.ts'
import { decorateUpstreamHeaders } from './upstream-headers.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Whether it comes from a peer of `listen.trustProxy`. */
    readonly trusted: boolean
  }
}

export default fp<Config>(
  async (fastify, config) => {
    fastify.decorateRequest('exchange', null)
    fastify.decorateRequest('asyncContext', null)
    fastify.decorateRequest('trusted', {
      getter(this: FastifyRequest) {
        return isTrusted(this.raw.socket.remoteAddress ?? '')
      }
    })
    decorateUpstreamHeaders(fastify)

    const seam: Dispatcher = fastify.getDecorator('mesh')
    const keepsContext = !fastify.hasDecorator(SEALED)
    const isTrusted = trustedPeers(config.listen.trustProxy)
    const believedOfPeers = believedHeaders(config)
    const trust = new HeaderTrust(config)
    const completions: (() => void)[] = []
    const requestIdHeader = config.edge.requestId.header.toLowerCase()
    // The same for all routes, of which there may be thousands.
    const drop = new Set([...hopByHop, ...forwardingHeaders, requestIdHeader, 'host', 'expect', 'via'])
    const dropAlsoCookies = new Set([...drop, 'cookie'])
    const dropBehind = new Set([...drop, ...notInTrailers])
    // Unique to this process: a gateway behind a gateway is no loop, the same request back here is.
    const pseudonym = `jingwei-${crypto.randomUUID().slice(0, 8)}`

    // Last of the `onRoute` hooks, so that it sees which headers the other concerns drop.
    fastify.addHook('onRoute', (routeOptions) => {
      const route = routeOptions.config?.route
      if (route === undefined) return
      trust.add(route, routeOptions.config?.dropHeaders ?? [])
      if (keepsContext) {
        attach(routeOptions, 'preParsing', (request, reply, payload, done) => {
          emitInContext(request, reply)
          done(null, payload)
        })
      }
      routeOptions.handler = forwardTo(route)
    })
    // Only now has every route said which headers it drops.
    fastify.addHook('onReady', async () => {
      for (const complete of completions.splice(0)) complete()
    })

    function forwardTo(route: RouteConfig) {
      let isDropped: HeaderFilter | null = null
      completions.push(() => {
        isDropped = trust.filterFor(route)
      })
      const origin: ServiceOrigin = `http://${route.service}.mesh`
      const rewrite = targetPath(route)
      const ownsCors = Boolean(route.edge.cors)
      const relocate = relocation(route, believedOfPeers.has('x-forwarded-host'))
      const taken = forwardedPrefix(route)
      const ownHost = route.edge.host === 'upstream'
      const policy = Object.keys(route.mesh).length > 0 ? route.mesh : undefined

      return (request: FastifyRequest, reply: FastifyReply) => {
        const { raw, upgrade } = request
        const via = raw.headers.via
        if (via?.includes(pseudonym)) throw new LoopDetected()

        const host = (raw.headers[':authority'] as string | undefined) ?? raw.headers.host ?? ''
        // Without one, each attempt's instance gets its own.
        const headers: string[] = ownHost ? [] : ['host', host]
        const alsoDrop = nominated(raw.headers.connection)
        if (raw.httpVersionMajor === 1) copyHeaders(headers, raw.rawHeaders, drop, alsoDrop, isDropped)
        else {
          copyHeaders(headers, raw.rawHeaders, dropAlsoCookies, alsoDrop, isDropped)
          // Of which HTTP/2 may bring many, and HTTP/1.1 has one for all (RFC 9113, 8.2.3).
          const { cookie } = raw.headers
          if (cookie !== undefined && !isDropped?.('cookie')) headers.push('cookie', cookie)
        }
        // Only chunks carry trailers, to the service as from the client.
        const mayTrail = upgrade === null && hasUnknownLength(raw)
        const { trailer } = raw.headers
        if (mayTrail && trailer !== undefined && !alsoDrop?.has('trailer')) {
          const isLeftOut = (name: string) => !goesOn(name, dropBehind, alsoDrop, isDropped)
          for (const line of announced(trailer, isLeftOut)) headers.push('trailer', line)
        }
        if (takesTrailers(raw.headers.te)) headers.push('te', 'trailers')
        headers.push(requestIdHeader, request.id)
        headers.push('via', `${via === undefined ? '' : `${via}, `}${raw.httpVersion} ${pseudonym}`)
        const believed = isTrusted(raw.socket.remoteAddress ?? '') ? believedOfPeers : null
        appendForwarding(headers, raw, believed)
        const prefix = prefixSoFar(taken, raw, believed)
        if (prefix !== null) headers.push('x-forwarded-prefix', prefix)
        if (request.upstreamHeaders !== null) headers.push(...request.upstreamHeaders)

        if (keepsContext) captureContext(request)
        const exchange = new Exchange(request, reply, ownsCors, relocate, prefix)
        request.exchange = exchange
        const target = raw.url!
        seam.dispatch(
          {
            origin,
            path: rewrite === null ? target : rewrite(target),
            method: request.method as Dispatcher.HttpMethod,
            headers,
            body: upgrade === null ? bodyOf(request) : null,
            caller: request,
            ...(upgrade !== null && { upgrade: 'websocket' }),
            ...(mayTrail && { trailers: () => copyHeaders([], raw.rawTrailers, dropBehind, alsoDrop, isDropped) }),
            ...(policy && { mesh: policy })
          } satisfies Dispatcher.DispatchOptions & CallerOptions,
          exchange
        )
      }
    }
  },
  { name: 'jingwei-forward', fastify: '5.x', dependencies: ['jingwei-errors'] }
)

/** No body unless the message's framing announces one: undici would send an empty one in chunks. */
function bodyOf({ raw, body }: FastifyRequest): Dispatcher.DispatchOptions['body'] {
  // undici's types leave out that it takes iterables.
  if (body === raw) return hasBody(raw) ? (new Body(raw) as AsyncIterable<Buffer> as Readable) : null
  return (body as Readable | undefined) ?? null
}

/** Copies what goes on to the service; repeated headers keep their order. */
function copyHeaders(
  to: string[],
  from: readonly string[],
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): string[] {
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i]!.toLowerCase()
    if (goesOn(name, drop, alsoDrop, isDropped)) to.push(name, from[i + 1]!)
  }
  return to
}

function goesOn(
  name: string,
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: HeaderFilter | null
): boolean {
  const pseudo = name.charCodeAt(0) === 58 // HTTP/2's :method and the like
  if (pseudo || drop.has(name) || alsoDrop?.has(name) || isDropped?.(name)) return false
  return !(name.includes('_') && isDisguised(name, drop))
}

/** Many services read `x_forwarded_for` and `X-Forwarded-For` as one header. */
function isDisguised(name: string, drop: ReadonlySet<string>): boolean {
  const meant = name.replaceAll('_', '-')
  return drop.has(meant) || meant === 'content-length'
}
