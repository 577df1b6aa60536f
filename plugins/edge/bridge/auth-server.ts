/**
 * Calls of edge concerns to a server that decides about requests: a service, through the mesh, or a URL. A call has one
 * timeout for all of it, its response is bounded, the calls in flight are bounded, also for each client, and redirects are not followed.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import type { FastifyBaseLogger, FastifyRequest } from 'fastify'
import type { Agent, Dispatcher } from 'undici'
import { onFirstUse } from '../../on-first-use.ts'
import { asError } from '../../thrown.ts'
import { clientAddressOf, networkOf } from '../protocol/client-address.ts'
import { goneSignal } from '../protocol/client-gone.ts'
import { callerOf } from '../request-trace.ts'

const undici = onFirstUse<typeof import('undici')>('undici')

export interface AuthServerOptions {
  readonly url?: string | undefined
  readonly service?: string | undefined
  /** Path at the service. */
  readonly path: string
  /** Milliseconds for the whole call. */
  readonly timeout: number
  readonly maxConcurrent: number
  /** Largest response body in bytes. */
  readonly maxResponseSize: number
}

interface AuthCall {
  readonly method: 'GET' | 'POST'
  /** Name, value, name, value. */
  readonly headers: string[]
  readonly body: Buffer | null
  /** Returns whether the body of a response with this status is needed. Otherwise the header section ends the call. */
  readonly needsBody: (status: number) => boolean
  /** False for a call whose result is for other requests, too, so that it must outlast the client. */
  readonly endsWithClient: boolean
}

export interface AuthResponse {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** Null if it was not needed, is larger than allowed, or did not arrive completely. */
  readonly body: Buffer | null
}

export type FailureReason = 'timeout' | 'unreachable' | 'overloaded' | 'malformed' | 'status'

/** A call without a usable response. */
export class AuthFailure extends Error {
  readonly reason: FailureReason

  constructor(reason: FailureReason, message: string, cause?: unknown) {
    super(message, { cause })
    this.reason = reason
  }
}

/** Shortest time between two failures that are logged. */
const logEveryMs = 10_000

/** Codes of a connection that ended without a response. If it is reused, the server may have closed it while it was idle. */
const stale = new Set(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

export class AuthServer {
  readonly #options: AuthServerOptions
  readonly #log: Pick<FastifyBaseLogger, 'info' | 'warn'>
  /** Null for a service of the mesh. */
  readonly #agent: Agent | null
  readonly #origin: string
  readonly #path: string
  #active = 0
  /** Connections on which undici sends the first request at this moment, directly after the event. */
  #starting = 0
  readonly #isReused = (): boolean => this.#agent !== null && this.#starting === 0
  /** Calls in flight by the network of the client. */
  readonly #activeOf = new Map<string, number>()
  /** True from a logged failure to the next success. */
  #isFailing = false
  #loggedAt = Number.NEGATIVE_INFINITY

  constructor(options: AuthServerOptions, log: Pick<FastifyBaseLogger, 'info' | 'warn'>) {
    this.#options = options
    this.#log = log
    const { url, service, path, timeout, maxConcurrent } = options
    if (url === undefined) {
      this.#agent = null
      this.#origin = `http://${service}.mesh`
      this.#path = path
      return
    }
    const { origin, pathname, search } = new URL(url)
    this.#origin = origin
    this.#path = pathname + search
    // As many connections as calls, so that no call waits in a queue of undici.
    this.#agent = new (undici().Agent)({ connections: maxConcurrent, connect: { timeout } })
    this.#agent.on('connect', () => {
      this.#starting++
      queueMicrotask(() => void this.#starting--)
    })
  }

  /**
   * Calls the server on behalf of a request; `read` reads its response. Throws an `AuthFailure`, also that of `read`, or the
   * reason for which the client has disconnected.
   */
  async call<T>(request: FastifyRequest, call: AuthCall, read: (response: AuthResponse) => T): Promise<T> {
    try {
      const result = read(await this.#ask(request, call))
      if (this.#isFailing) this.#log.info({ server: this.#name }, 'the server for authorization responds again')
      this.#isFailing = false
      return result
    } catch (error) {
      if (error instanceof AuthFailure) this.#report(error)
      throw error
    }
  }

  /** Logs the first of several failures; of a server that fails now and then, not every one. */
  #report(err: AuthFailure): void {
    const now = performance.now()
    if (this.#isFailing || now - this.#loggedAt < logEveryMs) return
    this.#isFailing = true
    this.#loggedAt = now
    this.#log.warn({ server: this.#name, err }, `the server for authorization failed: ${err.message}`)
  }

  async close(): Promise<void> {
    await this.#agent?.destroy()
  }

  get #name(): string {
    return this.#options.service ?? this.#origin
  }

  async #ask(request: FastifyRequest, call: AuthCall): Promise<AuthResponse> {
    const { timeout } = this.#options
    const began = performance.now()
    const first = this.#dispatch(request, call, timeout)
    try {
      return await first.response
    } catch (error) {
      const passed = performance.now() - began
      if (!first.isStale || passed > timeout / 4) throw error // Later, the server may have worked on the call.
      return this.#dispatch(request, call, Math.ceil(timeout - passed)).response
    }
  }

  #dispatch(request: FastifyRequest, call: AuthCall, timeout: number): Exchange {
    const { method, headers, body, endsWithClient } = call
    const { maxConcurrent } = this.#options
    const client = networkOf(clientAddressOf(request))
    const own = this.#activeOf.get(client) ?? 0
    const left = maxConcurrent - this.#active
    // Three times as many calls as are left: so each further client finds some, whatever the others do.
    if (left <= 0 || (own > 0 && own >= 3 * left)) {
      const whose = left > 0 ? ` of client ${client}` : ''
      throw new AuthFailure('overloaded', `${left > 0 ? own : maxConcurrent} calls${whose} are in flight`)
    }
    this.#active++
    this.#activeOf.set(client, own + 1)
    const onOver = () => {
      this.#active--
      const others = this.#activeOf.get(client)! - 1
      if (others > 0) this.#activeOf.set(client, others)
      else this.#activeOf.delete(client)
    }
    const gone = endsWithClient ? goneSignal(request) : null
    const exchange = new Exchange(call, { ...this.#options, timeout }, gone, this.#isReused, onOver)
    const dispatcher = this.#agent ?? request.server.getDecorator<Dispatcher>('mesh')
    const options = { origin: this.#origin, path: this.#path, method, headers, body }
    // A call that outlasts its request has no caller.
    const caller = endsWithClient && this.#agent === null ? callerOf(request) : undefined
    try {
      dispatcher.dispatch({ ...options, ...caller }, exchange)
    } catch (error) {
      exchange.end(asError(error))
    }
    return exchange
  }
}

/** Time for the rest of a response that is not needed, after which its connection is closed. */
const restMs = 1000
type Controller = Dispatcher.DispatchController

/** One call. Its timer ends with the response, also with the rest of a body that is not needed. */
class Exchange implements Dispatcher.DispatchHandler {
  readonly #call: AuthCall
  readonly #mostBytes: number
  readonly #gone: AbortSignal | null
  readonly #isReused: () => boolean
  readonly #onOver: () => void
  #isOnReused = false
  /** True if the call failed because a reused connection ended. False for the mesh, which retries by itself. */
  isStale = false
  readonly #result = Promise.withResolvers<AuthResponse>()
  #timer: NodeJS.Timeout
  #controller: Controller | null = null
  #head: Pick<AuthResponse, 'status' | 'headers'> | null = null
  #chunks: Buffer[] = []
  #size = 0
  #isOver = false

  constructor(
    call: AuthCall,
    { timeout, maxResponseSize }: AuthServerOptions,
    gone: AbortSignal | null,
    isReused: () => boolean,
    onOver: () => void
  ) {
    this.#call = call
    this.#mostBytes = maxResponseSize
    this.#timer = this.#endAfter(timeout)
    this.#gone = gone
    this.#isReused = isReused
    this.#onOver = onOver
    if (gone?.aborted) this.#leave()
    else gone?.addEventListener('abort', this.#leave, { once: true })
  }

  get response(): Promise<AuthResponse> {
    return this.#result.promise
  }

  #leave = (): void => this.end(this.#gone!.reason as Error)

  /** Ends the call with an error, which is ignored where the header section is enough. */
  end(error: Error): void {
    if (this.#isOver) return
    if (this.#head !== null) this.#settle(null)
    else this.#result.reject(error instanceof AuthFailure || error === this.#gone?.reason ? error : failureOf(error))
    this.#release()
    this.#controller?.abort(error)
  }

  #endAfter(ms: number): NodeJS.Timeout {
    return setTimeout(() => this.end(new AuthFailure('timeout', `no response within ${ms} ms`)), ms)
  }

  #settle(body: Buffer | null): void {
    this.#result.resolve({ ...this.#head!, body })
  }

  #release(): void {
    this.#isOver = true
    this.#chunks = []
    clearTimeout(this.#timer)
    this.#gone?.removeEventListener('abort', this.#leave)
    this.#onOver()
  }

  onRequestStart(controller: Controller): void {
    this.#controller = controller
    this.#isOnReused = this.#isReused()
    if (this.#isOver) controller.abort(new AuthFailure('timeout', 'the call is over'))
  }

  onRequestUpgrade(_controller: Controller, _status: number, _headers: unknown, socket: Duplex): void {
    socket.on('error', () => {}).destroy()
    this.end(new AuthFailure('malformed', 'the server switched to another protocol'))
  }

  onResponseStart(_controller: Controller, status: number, headers: IncomingHttpHeaders): void {
    if (status < 200) return
    this.#head = { status, headers }
    if (this.#isOver || this.#call.needsBody(status)) return
    this.#settle(null)
    clearTimeout(this.#timer)
    this.#timer = this.#endAfter(restMs)
  }

  onResponseData(_controller: Controller, chunk: Buffer): void {
    this.#size += chunk.length
    if (this.#size > this.#mostBytes) this.end(new AuthFailure('malformed', `more than ${this.#mostBytes} bytes`))
    else if (!this.#isOver) this.#chunks.push(chunk)
  }

  onResponseEnd(): void {
    if (this.#isOver) return
    this.#settle(Buffer.concat(this.#chunks, this.#size))
    this.#release()
  }

  onResponseError(_controller: Controller, error: Error): void {
    this.isStale = this.#isOnReused && stale.has((error as NodeJS.ErrnoException).code ?? '')
    this.end(error)
  }
}

function failureOf(error: Error): AuthFailure {
  const { code, name } = error as { code?: unknown; name: string }
  // undici's parser errors may lack a code.
  const isMalformed =
    name === 'HTTPParserError' || /^HPE_|^UND_ERR_(HEADERS|RES)|^JW_UPSTREAM_(MALFORMED|HEADERS)/.test(String(code))
  const isTimeout = /TIMEOUT$|^ETIMEDOUT$/.test(String(code))
  const reason = isMalformed ? 'malformed' : isTimeout ? 'timeout' : 'unreachable'
  return new AuthFailure(reason, error.message || String(code), error)
}
