/**
 * `request.mesh`: calls to services on behalf of a request. In a gateway, plugins make them (edge/bridge/request-mesh.ts);
 * with `jingwei/mesh/fastify`, the routes of a program. A call is aborted when the client disconnects, and fails with an
 * error of the table (error-table.ts).
 */
import createError from '@fastify/error'
import type { FastifyRequest } from 'fastify'
import type { Dispatcher } from 'undici'
import { withMissing } from './http-syntax.ts'
import { serviceOf } from './response-limit.ts'
import type { CallerSpan, ServiceOrigin } from './seam.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Calls services on behalf of this request. */
    readonly mesh: RequestMesh
  }
}

/** Options of undici's `request()`. The origin names a service, and the default method is `GET`. */
export interface CallOptions extends Omit<Dispatcher.RequestOptions, 'origin' | 'method' | 'signal'> {
  /** Virtual origin of the service: `http://orders.mesh`. */
  readonly origin: ServiceOrigin
  readonly method?: Dispatcher.HttpMethod
  /** Aborts the call, in addition to a disconnect of the client. */
  readonly signal?: AbortSignal
  /** Largest response body, in bytes; false for no limit. Default: 10 MB. */
  readonly maxResponseSize?: number | false
}

export interface JsonOptions extends Omit<CallOptions, 'origin' | 'path' | 'body'> {
  /** Body of the request, sent as JSON. */
  readonly body?: unknown
}

export interface StreamOptions extends Omit<CallOptions, 'origin' | 'path'> {
  /** Media type that the service should respond with, such as `text/event-stream`. */
  readonly accept?: string
}

const TimedOut = createError('JW_SIGNAL_TIMEOUT', '%s: the AbortSignal of the call timed out', 504)
const DeadlineExceeded = createError('JW_SIGNAL_TIMEOUT', '%s: not complete within %d ms', 504)
const NotJson = createError('JW_UPSTREAM_NOT_JSON', '%s: the response is not JSON', 502)

/** Error for a service that responded with a status other than 2xx. */
class UpstreamStatus extends createError('JW_UPSTREAM_STATUS', '%s responded with status %d', 502) {
  readonly service: string
  readonly status: number

  constructor(service: string, status: number) {
    super(service, status)
    this.service = service
    this.status = status
  }
}

const mostBytes = 10 * 1024 * 1024

/** Longest delay of a timer of Node. */
const longestMs = 2 ** 31 - 1

/** An absolute path, with or without a query, of visible ASCII (RFC 9112, 3.2.1). */
const originForm = /^\/[!-"$-~]*$/

/** Properties that the calls of a request take from it. */
interface OnBehalf {
  /** Returns headers, as name, value, name, value. */
  onBehalfOf(request: FastifyRequest): string[]
  /** Returns a signal that is aborted when the client disconnects or has disconnected. */
  goneSignal(request: FastifyRequest): AbortSignal
  /** Returns the span of the request, if its trace is recorded. */
  parentOf?(request: FastifyRequest): CallerSpan | undefined
}

export class RequestMesh {
  readonly #request: FastifyRequest
  readonly #requests: OnBehalf
  readonly #seam: Dispatcher
  /** Response bodies that have not ended. A set, since a long-lived request may make many calls. */
  readonly #open: Set<Dispatcher.ResponseData['body']>
  /** Aborts every call, in addition to a disconnect of the client. */
  readonly #until: AbortSignal | null

  constructor(
    request: FastifyRequest,
    requests: OnBehalf,
    seam: Dispatcher,
    open: Set<Dispatcher.ResponseData['body']> = new Set(),
    until: AbortSignal | null = null
  ) {
    this.#request = request
    this.#requests = requests
    this.#seam = seam
    this.#open = open
    this.#until = until
  }

  /** Aborted when the client disconnects, at the deadline of `within`, and by the signal of `until`. */
  get signal(): AbortSignal {
    const gone = this.#requests.goneSignal(this.#request)
    return this.#until === null ? gone : AbortSignal.any([gone, this.#until])
  }

  /** Returns an object for calls that `signal` aborts, too. */
  until(signal: AbortSignal): RequestMesh {
    const either = this.#until === null ? signal : AbortSignal.any([this.#until, signal])
    return new RequestMesh(this.#request, this.#requests, this.#seam, this.#open, either)
  }

  /**
   * Runs calls that share a deadline: those that are in flight `ms` milliseconds from now are aborted.
   * @throws {JW_SIGNAL_TIMEOUT} (504) if `run` has not ended by then.
   */
  async within<T>(ms: number, run: (mesh: RequestMesh) => T | Promise<T>): Promise<T> {
    if (!(ms > 0 && ms <= longestMs))
      throw new RangeError(`request.mesh.within: expected 1 to ${longestMs} ms, found ${ms}`)
    const controller = new AbortController()
    const { promise: expired, reject } = Promise.withResolvers<never>()
    let late: NodeJS.Immediate | undefined
    const timer = setTimeout(() => {
      const error = new DeadlineExceeded(this.#request.routeOptions.url, ms)
      controller.abort(error)
      // A partial result is complete in the microtasks that follow the abort.
      late = setImmediate(reject, error)
    }, ms)
    try {
      return await Promise.race([run(this.until(controller.signal)), expired])
    } finally {
      clearTimeout(timer)
      clearImmediate(late)
    }
  }

  /**
   * Calls a service, as undici's `request()` does. A response body that is open when the response to the client has ended is
   * destroyed, also while it is read.
   */
  async request(options: CallOptions): Promise<Dispatcher.ResponseData> {
    const { method = 'GET', maxResponseSize = mostBytes, headers, signal, ...rest } = options
    // A target in absolute form would name a host, which takes precedence over `Host` (RFC 9112, 3.2.2).
    if (typeof rest.path !== 'string' || !originForm.test(rest.path)) {
      throw new TypeError('request.mesh: path must begin with a slash, and have only visible ASCII and no fragment')
    }
    const gone = this.#requests.goneSignal(this.#request)
    gone.throwIfAborted()
    const own = [signal, this.#until].filter((each) => each != null)
    const end = own.length === 0 ? { signal: gone, release() {} } : endOf(gone, own, options.origin)
    const response = await this.#seam
      .request({
        ...rest,
        method,
        maxResponseSize,
        headers: withMissing(headers, this.#requests.onBehalfOf(this.#request)),
        signal: end.signal,
        caller: this.#request,
        request: this.#request,
        trace: this.#requests.parentOf?.(this.#request)
      } as Dispatcher.RequestOptions)
      .catch((error: unknown) => {
        end.release()
        throw error
      })
    const { body } = response
    if (body.closed) end.release()
    else {
      this.#open.add(body)
      body.once('close', () => {
        this.#open.delete(body)
        end.release()
      })
    }
    return response
  }

  /**
   * Destroys the response bodies that are open: each would hold its connection. A reader that has stopped cannot be told
   * from one that waits for a silent service.
   */
  endOpen(): void {
    for (const body of this.#open) body.on('error', () => {}).destroy()
  }

  /**
   * Returns the JSON body of a service's response; null if the body is empty. For a status other than 2xx, throws
   * `JW_UPSTREAM_STATUS` with that `status`.
   */
  async json<T = unknown>(service: string, path: string, options: JsonOptions = {}): Promise<T> {
    const { body: value, headers, ...rest } = options
    const body = await this.stream(service, path, {
      maxResponseSize: mostBytes,
      ...rest,
      accept: 'application/json',
      headers: value === undefined ? headers : withMissing(headers, ['content-type', 'application/json']),
      ...(value !== undefined && { body: JSON.stringify(value) })
    })
    // The body ends by itself, at the latest by a limit, and a call that nothing waits for may outlast the response.
    this.#open.delete(body)
    const text = await body.text()
    if (text === '') return null as T
    try {
      return JSON.parse(text) as T
    } catch {
      throw new NotJson(service)
    }
  }

  /**
   * Returns the body of a service's response as a stream, of any size. For a status other than 2xx, throws
   * `JW_UPSTREAM_STATUS` with that `status`.
   */
  async stream(service: string, path: string, options: StreamOptions = {}): Promise<Dispatcher.ResponseData['body']> {
    const { accept, headers, maxResponseSize = false, ...rest } = options
    const { statusCode, body } = await this.request({
      ...rest,
      origin: `http://${service}.mesh`,
      path,
      maxResponseSize,
      headers: accept === undefined ? headers : withMissing(headers, ['accept', accept])
    })
    if (statusCode >= 200 && statusCode <= 299) return body
    // Read, so that the connection can be used again, but not awaited: the body may never end.
    body.dump().catch(() => {})
    throw new UpstreamStatus(service, statusCode)
  }
}

/**
 * Returns a signal for a call that aborts when the client disconnects or when one of the plugin's own signals does. An
 * `AbortSignal.timeout()` becomes `JW_SIGNAL_TIMEOUT` (504), like the other timeouts of a call.
 */
function endOf(gone: AbortSignal, own: readonly AbortSignal[], origin: ServiceOrigin) {
  // Not `AbortSignal.any`, which costs several times as much.
  const controller = new AbortController()
  const all = [gone, ...own]
  const end = () => {
    release()
    const reason: unknown = all.find(({ aborted }) => aborted)?.reason
    const isTimeout = reason instanceof DOMException && reason.name === 'TimeoutError'
    controller.abort(isTimeout ? Object.assign(new TimedOut(serviceOf(origin)), { cause: reason }) : reason)
  }
  const release = () => {
    for (const each of all) each.removeEventListener('abort', end)
  }
  for (const each of all) each.addEventListener('abort', end)
  if (all.some(({ aborted }) => aborted)) end()
  return { signal: controller.signal, release }
}
