/**
 * The bridge: the one place of the edge that touches the seam. It hands the client's request to the
 * dispatcher and writes the answer to the client's socket as it comes, without Fastify's reply in between.
 */
import type { IncomingHttpHeaders, ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import type { FastifyReply, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { Dispatcher } from 'undici'
import type { Config, RouteConfig } from '../../config/schema.ts'
import { LoopDetected } from './errors.ts'
import { appendForwarding, forwardingHeaders, trustedPeers } from './forwarding-headers.ts'
import { hopByHop, nominated } from './headers.ts'
import { targetPath } from './target-path.ts'
import { decorateUpstreamHeaders, headerFilter } from './upstream-headers.ts'

/** What the mesh tells of a call, if a mesh is behind the seam. */
interface CallRecord {
  readonly service: string
  readonly instance: string | null
  readonly attempts: number
}

declare module 'fastify' {
  interface FastifyRequest {
    /** The exchange with the service, from the moment it began. */
    exchange: { readonly call: CallRecord | null; readonly bytesSent: number } | null
  }
}

/** The client left before the answer was complete; blames no instance. 499 is nginx's status for it. */
class ClientGone extends Error {
  readonly code = 'JW_CLIENT_GONE'
}

export default fp<Config>(
  async (fastify, config) => {
    fastify.decorateRequest('exchange', null)
    decorateUpstreamHeaders(fastify)
    // Bodies go on as they are: no parser reads them, of any content type.
    fastify.removeAllContentTypeParsers()
    fastify.addContentTypeParser('*', (_request, payload, done) => done(null, payload))

    const seam: Dispatcher = fastify.getDecorator('mesh')
    const isTrusted = trustedPeers(config.listen.trustProxy)
    const requestIdHeader = config.edge.requestId.header.toLowerCase()
    // Unique to this process: a gateway behind a gateway is no loop, the same request back here is.
    const pseudonym = `jingwei-${crypto.randomUUID().slice(0, 8)}`

    // Last of the `onRoute` hooks, so that it sees which headers the other concerns drop.
    fastify.addHook('onRoute', (routeOptions) => {
      const route = routeOptions.config?.route
      if (route !== undefined) routeOptions.handler = forwardTo(route, headerFilter(routeOptions.config?.dropHeaders))
    })

    function forwardTo(route: RouteConfig, isDropped: ((name: string) => boolean) | null) {
      const origin = `http://${route.service}.mesh`
      const rewrite = targetPath(route)
      const policy = Object.keys(route.mesh).length > 0 ? route.mesh : undefined
      const drop = new Set([...hopByHop, ...forwardingHeaders, requestIdHeader, 'host', 'expect', 'via'])

      return (request: FastifyRequest, reply: FastifyReply) => {
        const { raw } = request
        if (reply.raw.destroyed) return
        const via = raw.headers.via
        if (via?.includes(pseudonym)) throw new LoopDetected()

        const headers: string[] = ['host', (raw.headers[':authority'] as string | undefined) ?? raw.headers.host ?? '']
        copyHeaders(headers, raw.rawHeaders, drop, nominated(raw.headers.connection), isDropped)
        headers.push(requestIdHeader, request.id)
        headers.push('via', `${via === undefined ? '' : `${via}, `}${raw.httpVersion} ${pseudonym}`)
        appendForwarding(headers, raw, isTrusted(raw.socket.remoteAddress ?? ''))
        if (request.upstreamHeaders !== null) headers.push(...request.upstreamHeaders)

        const exchange = new Exchange(request, reply)
        request.exchange = exchange
        const target = raw.url!
        seam.dispatch(
          {
            origin,
            path: rewrite === null ? target : rewrite(target),
            method: request.method as Dispatcher.HttpMethod,
            headers,
            body: (request.body as Readable | undefined) ?? null,
            ...(policy && { mesh: policy })
          },
          exchange
        )
      }
    }
  },
  { name: 'jingwei-forward', fastify: '5.x', dependencies: ['jingwei-errors'] }
)

/** Copies what goes on to the service; names keep their spelling, repeated headers their order. */
function copyHeaders(
  to: string[],
  from: readonly string[],
  drop: ReadonlySet<string>,
  alsoDrop: ReadonlySet<string> | null,
  isDropped: ((name: string) => boolean) | null
): void {
  for (let i = 0; i < from.length; i += 2) {
    const name = from[i]!.toLowerCase()
    const pseudo = name.charCodeAt(0) === 58 // HTTP/2's :method and the like
    if (pseudo || drop.has(name) || alsoDrop?.has(name) || isDropped?.(name)) continue
    to.push(name, from[i + 1]!)
  }
}

/** One request's answer on its way from the seam to the client. */
class Exchange implements Dispatcher.DispatchHandler {
  call: CallRecord | null = null
  bytesSent = 0
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #raw: ServerResponse
  #controller: Dispatcher.DispatchController | null = null
  #gone = false

  constructor(request: FastifyRequest, reply: FastifyReply) {
    this.#request = request
    this.#reply = reply
    this.#raw = reply.raw
    // 'close' on the response, not on the request: that one fires as soon as a body is read.
    reply.raw.once('close', () => this.#onClose())
  }

  #onClose(): void {
    if (this.#raw.writableFinished) return
    this.#gone = true
    const reason = new ClientGone('the client closed the connection')
    if (this.#request.failure === null) {
      this.#request.failure = reason.code
      if (!this.#raw.headersSent) this.#reply.code(499)
    }
    this.#reply.hijack()
    this.#controller?.abort(reason)
    // Fastify runs its onResponse hooks on 'finish' or 'error' alone, and a client that leaves causes neither.
    if (this.#raw.listenerCount('error') > 0) this.#raw.emit('error', reason)
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: { call?: CallRecord } | null): void {
    this.#controller = controller
    this.call ??= context?.call ?? null
    if (this.#gone) controller.abort(new ClientGone('the client closed the connection'))
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    if (this.#gone) return
    if (status < 200) {
      this.#informational(status, headers)
      return
    }
    this.#reply.hijack()
    this.#raw.writeHead(status, text, this.#responseHeaders(headers))
    this.#reply.raw.statusCode = status
  }

  /** The service's headers less the hop-by-hop ones; what the edge set on the reply wins. */
  #responseHeaders(headers: IncomingHttpHeaders): string[] {
    const own = this.#reply.getHeaders()
    const alsoDrop = nominated(headers.connection)
    const merged: string[] = []
    for (const name in headers) {
      if (hopByHop.has(name) || alsoDrop?.has(name)) continue
      if (own[name] !== undefined && name !== 'vary' && name !== 'set-cookie') continue
      const value = headers[name]
      if (typeof value === 'string') merged.push(name, value)
      else if (value !== undefined) for (const item of value) merged.push(name, item)
    }
    for (const name in own) {
      const value = own[name]!
      if (Array.isArray(value)) for (const item of value) merged.push(name, item)
      else merged.push(name, String(value))
    }
    return merged
  }

  #informational(status: number, headers: IncomingHttpHeaders): void {
    if (status === 102) this.#raw.writeProcessing()
    else if (status === 103 && headers.link !== undefined) this.#raw.writeEarlyHints({ link: headers.link })
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#gone) return
    this.bytesSent += chunk.length
    if (this.#raw.write(chunk)) return
    controller.pause()
    this.#raw.once('drain', () => controller.resume())
  }

  onResponseEnd(_controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders | undefined): void {
    if (this.#gone) return
    for (const name in trailers) {
      if (!hopByHop.has(name))
        this.#raw.addTrailers({ [name]: trailers[name] as string | string[] } as Record<string, string>)
    }
    this.#raw.end()
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error & { code?: string }): void {
    if (this.#gone) return
    if (!this.#raw.headersSent) {
      this.#reply.send(error)
      return
    }
    // Too late for a status: a broken connection tells the client that the body is not whole.
    this.#request.failure = error.code ?? 'JW_INTERNAL'
    this.#raw.destroy()
  }
}
