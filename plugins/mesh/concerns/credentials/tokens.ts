/**
 * The token of a service: requested once for all calls that wait for it, replaced ahead of its expiry while calls use it, and
 * requested again, with growing pauses, after a failure. It outlives the configuration, as the service does.
 */
import { MeshError } from '../../core/errors.ts'
import type { Count } from '../../core/metrics.ts'
import { counterOf, serviceGauge } from '../../core/metrics.ts'
import type { Service } from '../../core/service.ts'
import type { Dispatch, DispatchHandler, DispatchOptions, Logger, MeshDeps } from '../../core/types.ts'
import { WaitQueue } from '../../core/waiting.ts'
import type { Post } from './exchange.ts'
import { postsThrough, postsTo } from './exchange.ts'
import type { OAuth2Options } from './options.ts'
import type { TokenFailure } from './token-request.ts'
import { endpointText, requestToken } from './token-request.ts'

/** Most calls that wait for a token. */
const mostWaiting = 1024
/** Pause after the first of several failures, and the longest one. */
const firstPauseMs = 1000
const longestPauseMs = 30_000
/** Shortest lifetime of a token. */
const leastMs = 1000
/** Age below which a token that the service refuses is not replaced: another one would be refused, too. */
const freshMs = 10_000
/** Shortest time between two log lines about such tokens. */
const logEveryMs = 60_000

interface Token {
  readonly value: string
  readonly requestedAt: number
  /** Time from which on it is replaced. */
  readonly refreshAt: number
  readonly expiresAt: number
}

type ToService = (name: string) => Dispatch

export class Tokens {
  readonly #options: OAuth2Options
  readonly #service: string
  readonly #log: Logger
  /** Real time: the clock of the mesh stands still while the event loop is blocked, and tokens expire meanwhile. */
  readonly #now: () => number
  readonly #queue: WaitQueue
  readonly #url: { readonly post: Post; readonly close: () => void } | null
  readonly #count: Readonly<Record<'success' | 'failure' | 'missing' | 'refused', Count>>
  readonly #removeGauge: () => void
  #token: Token | null = null
  #isPending = false
  #failure: { readonly error: TokenFailure; readonly until: number; readonly count: number } | null = null
  #loggedAt = Number.NEGATIVE_INFINITY
  #closed = false

  constructor({ name }: Service, options: OAuth2Options, { now, stalledMs, meter, log }: MeshDeps) {
    this.#options = options
    this.#service = name
    this.#log = log
    this.#now = () => now() + (stalledMs?.() ?? 0)
    this.#queue = new WaitQueue(now, () => this.#closeIfUnused())
    this.#url = options.url === undefined ? null : postsTo(options)
    const requests = {
      name: 'jingwei_mesh_token_requests_total',
      help: 'Requests for tokens toward a service, by outcome.'
    }
    const missing = {
      name: 'jingwei_mesh_credentials_missing_total',
      help: 'Calls that failed because no token for the service could be had.'
    }
    const refused = {
      name: 'jingwei_mesh_credentials_refused_total',
      help: 'Responses with status 401 to calls with a token of the gateway.'
    }
    this.#count = {
      success: counterOf(meter, requests, { service: name, outcome: 'success' }),
      failure: counterOf(meter, requests, { service: name, outcome: 'failure' }),
      missing: counterOf(meter, missing, { service: name }),
      refused: counterOf(meter, refused, { service: name })
    }
    const gauge = {
      name: 'jingwei_mesh_token_valid_seconds',
      help: 'Time for which the token toward a service is still valid; 0 without one.'
    }
    this.#removeGauge = serviceGauge(meter, gauge, name, () => this.#leftMs / 1000)
  }

  get #leftMs(): number {
    return this.#token === null ? 0 : Math.max(0, this.#token.expiresAt - this.#now())
  }

  /** Returns the value of the header, or null without a valid token. Replaces a token that expires soon. */
  current(toService: ToService): string | null {
    const token = this.#token
    if (token === null) return null
    const now = this.#now()
    if (now >= token.expiresAt) {
      this.#token = null
      return null
    }
    if (now >= token.refreshAt && this.#mayRequest(now)) void this.#request(toService)
    return token.value
  }

  #mayRequest(now: number): boolean {
    return !this.#isPending && (this.#failure === null || now >= this.#failure.until)
  }

  /** Queues a call until there is a token, or fails it. `dispatch` sends it. */
  wait(toService: ToService, dispatch: Dispatch, opts: DispatchOptions, handler: DispatchHandler): void {
    const now = this.#now()
    if (!this.#isPending && !this.#mayRequest(now)) this.#fail(opts, handler)
    else if (this.#queue.size >= mostWaiting) {
      const error = new MeshError('JW_OVERLOADED', this.#service, undefined, 'overload_pending')
      handler.onResponseError?.(opts.call!, error)
    } else {
      this.#queue.join(dispatch, opts, handler)
      if (!this.#isPending) void this.#request(toService)
    }
  }

  #fail({ call }: DispatchOptions, handler: DispatchHandler): void {
    const { error, until } = this.#failure!
    this.#count.missing()
    const retryAfterMs = Math.max(1, until - this.#now())
    const failure = new MeshError('JW_CREDENTIALS_UNAVAILABLE', this.#service, retryAfterMs, error.reason)
    handler.onResponseError?.(call!, failure)
  }

  /** Notes that the service refused a token with 401. Returns whether to try another one. */
  refuse(value: string): boolean {
    this.#count.refused()
    const token = this.#token
    if (token === null || token.value !== value)
      return token !== null || this.#isPending || this.#mayRequest(this.#now())
    const now = this.#now()
    if (now - token.requestedAt >= freshMs) {
      this.#token = null
      return true
    }
    if (now - this.#loggedAt >= logEveryMs) {
      this.#loggedAt = now
      const message = `${this.#service} refuses a new token with 401: check the scopes, the audience and the client`
      this.#log.warn({ service: this.#service, clientId: this.#options.clientId }, message)
    }
    return false
  }

  /** Never rejects. */
  async #request(toService: ToService): Promise<void> {
    this.#isPending = true
    const requestedAt = this.#now()
    try {
      const post = this.#url?.post ?? postsThrough(toService, this.#options)
      const { token, lifetimeMs } = await requestToken(this.#options, post)
      this.#keep(`Bearer ${token}`, requestedAt, lifetimeMs)
    } catch (error) {
      this.#note(error as TokenFailure)
    }
    this.#isPending = false
    this.#serve()
    this.#closeIfUnused()
  }

  #keep(value: string, requestedAt: number, given: number | null): void {
    const { maxAge, refreshBefore } = this.#options
    const lifetime = Math.max(leastMs, Math.min(maxAge, given ?? maxAge))
    const expiresAt = requestedAt + lifetime
    this.#token = { value, requestedAt, expiresAt, refreshAt: expiresAt - Math.min(refreshBefore, lifetime / 2) }
    this.#count.success()
    if (this.#failure !== null)
      this.#log.info(this.#fields, `the token endpoint gives tokens for ${this.#service} again`)
    this.#failure = null
  }

  #note(error: TokenFailure): void {
    this.#count.failure()
    const count = (this.#failure?.count ?? 0) + 1
    const pauseMs = Math.min(longestPauseMs, firstPauseMs * 2 ** (count - 1))
    if (count === 1 && !this.#closed) {
      const consequence =
        this.#leftMs > 0 ? 'the current token stays in use until it expires' : 'calls fail until there is one'
      const fields = { ...this.#fields, reason: error.reason, err: error }
      this.#log.warn(fields, `no token for ${this.#service}: ${error.message}; ${consequence}`)
    }
    this.#failure = { error, until: this.#now() + pauseMs, count }
  }

  get #fields() {
    return { service: this.#service, endpoint: endpointText(this.#options), clientId: this.#options.clientId }
  }

  /** Sends the calls that wait, or fails them. */
  #serve(): void {
    const isFailed = this.#failure !== null && this.#token === null
    // Not those that begin to wait meanwhile.
    for (let left = this.#queue.size; left > 0; left--) {
      const next = this.#queue.next()
      if (next === null) return
      const { dispatch, opts, handler } = next
      if (isFailed) this.#fail(opts, handler)
      else {
        try {
          dispatch(opts, handler)
        } catch (error) {
          opts.call!.abort(error as Error)
        }
      }
    }
  }

  status() {
    return {
      kind: 'oauth2',
      endpoint: endpointText(this.#options),
      validMs: Math.round(this.#leftMs),
      waiting: this.#queue.size,
      error: this.#failure?.error.message ?? null
    }
  }

  /** Calls in flight may still wait for a token: the service ends after them. */
  close(): void {
    this.#closed = true
    this.#removeGauge()
    this.#closeIfUnused()
  }

  #closeIfUnused(): void {
    if (this.#closed && this.#queue.size === 0) this.#url?.close()
  }
}
