/** Requests that the cache cannot answer. If an unsafe method succeeds, stored responses for its URI are removed (RFC 9111, 4.4). */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import type { CallContext } from '../../../seam.ts'
import { resourceOf } from './asked.ts'
import { Delivery } from './delivery.ts'
import type { CacheOptions } from './options.ts'
import type { ResponseStore } from './store.ts'

type Controller = Dispatcher.DispatchController
type Handler = Dispatcher.DispatchHandler

const safe: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE'])

/** Returns the handler for a request that the cache cannot answer. */
export function passing(
  next: Handler,
  opts: Dispatcher.DispatchOptions,
  store: ResponseStore,
  options: CacheOptions,
  service: string
): Handler {
  const isUnsafe = !safe.has(opts.method) && !opts.upgrade
  if (isUnsafe && store.isRemote) return new HeldInvalidation(new Delivery(next, service), opts, store, options)
  return new Passage(next, opts, isUnsafe ? store : null, options)
}

/** Passes a response on, and invalidates before the client gets its header section. */
class Passage implements Handler {
  readonly #next: Handler
  readonly #opts: Dispatcher.DispatchOptions
  readonly #store: ResponseStore | null
  readonly #options: CacheOptions

  constructor(next: Handler, opts: Dispatcher.DispatchOptions, store: ResponseStore | null, options: CacheOptions) {
    this.#next = next
    this.#opts = opts
    this.#store = store
    this.#options = options
  }

  get borrows(): Handler['onResponseData'] {
    return this.#next.borrows === this.#next.onResponseData ? this.onResponseData : undefined
  }

  onRequestStart(controller: Controller, context: unknown): void {
    this.#next.onRequestStart?.(controller, context)
  }

  onRequestUpgrade(...args: Parameters<NonNullable<Handler['onRequestUpgrade']>>): void {
    this.#next.onRequestUpgrade?.(...args)
  }

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders, text?: string): void {
    const isPlain = status < 200 || this.#opts.upgrade
    if (this.#store !== null && !isPlain && status < 400)
      this.#store.invalidate(invalidated(this.#opts, headers), () => {})
    const passed = isPlain ? headers : withStatus(this.#opts, this.#options, headers)
    this.#next.onResponseStart?.(controller, status, passed, text)
  }

  onResponseData(controller: Controller, chunk: Buffer): void {
    this.#next.onResponseData?.(controller, chunk)
  }

  onResponseEnd(controller: Controller, trailers: IncomingHttpHeaders): void {
    this.#next.onResponseEnd?.(controller, trailers)
  }

  onResponseError(controller: Controller, error: Error): void {
    this.#next.onResponseError?.(controller, error)
  }
}

/**
 * Does the same with a store that takes time: holds the response until the store has invalidated. Otherwise the client could
 * send its next request to another node, and get there what its change has made outdated.
 */
class HeldInvalidation implements Handler {
  readonly #delivery: Delivery
  readonly #opts: Dispatcher.DispatchOptions
  readonly #store: ResponseStore
  readonly #options: CacheOptions
  /** Events of the response that wait for the store; null while it passes. */
  #held: (() => void)[] | null = null

  constructor(delivery: Delivery, opts: Dispatcher.DispatchOptions, store: ResponseStore, options: CacheOptions) {
    this.#delivery = delivery
    this.#opts = opts
    this.#store = store
    this.#options = options
    delivery.start()
  }

  get borrows(): Handler['onResponseData'] {
    return this.#delivery.borrows ? this.onResponseData : undefined
  }

  onRequestStart(controller: Controller, context: CallContext | null): void {
    this.#delivery.attach(controller, context?.call ?? null)
  }

  onResponseStart(controller: Controller, status: number, headers: IncomingHttpHeaders, text = ''): void {
    const isFinal = status >= 200
    const passed = isFinal ? withStatus(this.#opts, this.#options, headers) : headers
    if (isFinal && status < 400) {
      this.#held = []
      this.#store.invalidate(invalidated(this.#opts, headers), () => this.#release(controller))
      if (this.#held !== null) controller.pause()
    }
    this.#pass(() => this.#delivery.head(status, passed, text))
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    if (this.#held === null) this.#delivery.data(chunk)
    else {
      // A copy: the given memory is used again.
      const own = Buffer.from(chunk)
      this.#held.push(() => this.#delivery.data(own))
    }
  }

  onResponseEnd(_controller: Controller, trailers: IncomingHttpHeaders = {}): void {
    this.#pass(() => this.#delivery.end(trailers))
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.#pass(() => this.#delivery.fail(error))
  }

  #pass(event: () => void): void {
    if (this.#held === null) event()
    else this.#held.push(event)
  }

  #release(controller: Controller): void {
    const held = this.#held ?? []
    this.#held = null
    for (const event of held) event()
    if (held.length > 0 && !this.#delivery.paused && !this.#delivery.isOver) controller.resume()
  }
}

function withStatus(
  { method }: Dispatcher.DispatchOptions,
  { cacheStatus }: CacheOptions,
  headers: IncomingHttpHeaders
): IncomingHttpHeaders {
  if (cacheStatus === 'off') return headers
  const own = `jingwei; fwd=${method === 'GET' || method === 'HEAD' ? 'bypass' : 'method'}`
  const before = headers['cache-status']
  return { ...headers, 'cache-status': before === undefined ? own : `${String(before)}, ${own}` }
}

/** Returns the resources that a successful request has changed: its own, and those that the response names on the same host. */
function invalidated(opts: Dispatcher.DispatchOptions, headers: IncomingHttpHeaders): readonly string[] {
  const request = opts.request as FastifyRequest
  const pairs = opts.headers as readonly string[]
  const given = new Map<string, string>()
  for (let at = 0; at < pairs.length; at += 2) given.set(pairs[at]!.toLowerCase(), pairs[at + 1]!)
  const host = given.get('x-forwarded-host') ?? given.get('host') ?? ''
  const { path } = opts
  const others = [headers.location, headers['content-location']].flatMap((value) => {
    const other = typeof value === 'string' ? sameOrigin(value, `${request.protocol}://${host}`, path) : null
    return other === null ? [] : [resourceOf(request, given, other)]
  })
  return [resourceOf(request, given, path), ...others]
}

/** Returns path and query of a URI reference, if it has the same origin as the request. */
function sameOrigin(reference: string, origin: string, path: string): string | null {
  const base = URL.parse(path, origin)
  const url = base === null ? null : URL.parse(reference, base)
  return url === null || url.origin !== base!.origin ? null : `${url.pathname}${url.search}`
}
