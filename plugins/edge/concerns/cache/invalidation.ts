/** Requests that the cache cannot answer. If an unsafe method succeeds, stored responses for its URI are removed (RFC 9111, 4.4). */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { resourceOf } from './asked.ts'
import type { MemoryStore } from './memory-store.ts'
import type { CacheOptions } from './options.ts'

const safe: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/** Passes a response on, and invalidates before the client gets its header section. */
export class Invalidation implements Dispatcher.DispatchHandler {
  readonly #next: Dispatcher.DispatchHandler
  readonly #opts: Dispatcher.DispatchOptions
  readonly #store: MemoryStore
  readonly #options: CacheOptions

  constructor(
    next: Dispatcher.DispatchHandler,
    opts: Dispatcher.DispatchOptions,
    store: MemoryStore,
    options: CacheOptions
  ) {
    this.#next = next
    this.#opts = opts
    this.#store = store
    this.#options = options
  }

  get borrows(): Dispatcher.DispatchHandler['onResponseData'] {
    return this.#next.borrows === this.#next.onResponseData ? this.onResponseData : undefined
  }

  onRequestStart(controller: Dispatcher.DispatchController, context: unknown): void {
    this.#next.onRequestStart?.(controller, context)
  }

  onRequestUpgrade(...args: Parameters<NonNullable<Dispatcher.DispatchHandler['onRequestUpgrade']>>): void {
    this.#next.onRequestUpgrade?.(...args)
  }

  onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    headers: IncomingHttpHeaders,
    text?: string
  ): void {
    const { method, upgrade } = this.#opts
    if (status < 200 || upgrade) {
      this.#next.onResponseStart?.(controller, status, headers, text)
      return
    }
    if (!safe.has(method) && status < 400) this.#invalidate(headers)
    const reason = method === 'GET' || method === 'HEAD' ? 'bypass' : 'method'
    const before = headers['cache-status']
    const own = `jingwei; fwd=${reason}`
    const field = { 'cache-status': before === undefined ? own : `${String(before)}, ${own}` }
    const passed = this.#options.cacheStatus === 'off' ? headers : { ...headers, ...field }
    this.#next.onResponseStart?.(controller, status, passed, text)
  }

  #invalidate(headers: IncomingHttpHeaders): void {
    const request = this.#opts.request as FastifyRequest
    const pairs = this.#opts.headers as readonly string[]
    const given = new Map<string, string>()
    for (let at = 0; at < pairs.length; at += 2) given.set(pairs[at]!.toLowerCase(), pairs[at + 1]!)
    const host = given.get('x-forwarded-host') ?? given.get('host') ?? ''
    const { path } = this.#opts
    this.#store.invalidate(resourceOf(request, given, path))
    for (const value of [headers.location, headers['content-location']]) {
      const other = typeof value === 'string' ? sameOrigin(value, `${request.protocol}://${host}`, path) : null
      if (other !== null) this.#store.invalidate(resourceOf(request, given, other))
    }
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#next.onResponseData?.(controller, chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController, trailers: IncomingHttpHeaders): void {
    this.#next.onResponseEnd?.(controller, trailers)
  }

  onResponseError(controller: Dispatcher.DispatchController, error: Error): void {
    this.#next.onResponseError?.(controller, error)
  }
}

/** Returns path and query of a URI reference, if it has the same origin as the request. */
function sameOrigin(reference: string, origin: string, path: string): string | null {
  const base = URL.parse(path, origin)
  const url = base === null ? null : URL.parse(reference, base)
  return url === null || url.origin !== base!.origin ? null : `${url.pathname}${url.search}`
}
