/**
 * Asks an introspection endpoint (RFC 7662) whether tokens are active, and caches its responses by the digest of the token.
 * Requests with the same token share a call. Calls in flight are bounded, so that random tokens cannot overload the endpoint.
 */
import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { AuthResponse, AuthServer } from '../../bridge/auth-server.ts'
import { AuthFailure } from '../../bridge/auth-server.ts'
import { ByteLru } from '../../byte-lru.ts'
import type { IntrospectionOptions } from './options.ts'

export type Claims = Readonly<Record<string, unknown>>

/** Claims of an active token; null for an inactive one. */
type Result = Claims | null

interface Entry {
  readonly result: Result
  /** Time of the monotonic clock, in milliseconds. */
  readonly until: number
}

/** The options on which the responses of the endpoint, and their lifetime, depend. */
export type EndpointOptions = Pick<
  IntrospectionOptions,
  'clientId' | 'clientSecret' | 'clientAuth' | 'maxAge' | 'inactiveMaxAge' | 'cacheSize'
>

export class Introspector {
  /** Calls of the endpoint so far. */
  calls = 0
  readonly #server: AuthServer
  readonly #options: EndpointOptions
  readonly #clock: Clock
  readonly #headers: readonly string[]
  readonly #credentials: Readonly<Record<string, string>>
  /** Separate caches, so that random tokens do not evict active ones. */
  readonly #active: ByteLru<Entry>
  readonly #inactive: ByteLru<Entry>
  /** Calls in flight by digest; bounded by those of the server. */
  readonly #pending = new Map<string, Promise<Result>>()

  constructor(server: AuthServer, options: EndpointOptions, clock: Clock) {
    const { clientId, clientSecret, clientAuth, cacheSize } = options
    this.#server = server
    this.#options = options
    this.#clock = clock
    this.#active = new ByteLru(cacheSize)
    this.#inactive = new ByteLru(cacheSize / 4)
    const headers = ['content-type', 'application/x-www-form-urlencoded', 'accept', 'application/json']
    const isBasic = clientAuth === 'basic'
    // RFC 6749, 2.3.1: both are form-encoded before they are joined.
    const userinfo = [clientId, clientSecret]
      .map((text) => new URLSearchParams({ a: text }).toString().slice(2))
      .join(':')
    this.#headers = isBasic
      ? [...headers, 'authorization', `Basic ${Buffer.from(userinfo).toString('base64')}`]
      : headers
    this.#credentials = isBasic ? {} : { client_id: clientId, client_secret: clientSecret }
  }

  /** Returns the claims of a token, at once if they are cached; null if the token is not active. Rejects with an `AuthFailure`. */
  introspect(token: string, request: FastifyRequest, onCached: () => void): Result | Promise<Result> {
    const digest = hash('sha256', token, 'base64')
    const entry = this.#freshIn(this.#active, digest) ?? this.#freshIn(this.#inactive, digest)
    if (entry !== null) {
      onCached()
      return entry.result
    }
    const pending = this.#pending.get(digest)
    if (pending !== undefined) return pending
    this.calls++
    const call = this.#ask(token, digest, request).finally(() => this.#pending.delete(digest))
    this.#pending.set(digest, call)
    return call
  }

  /** Returns the entry of a token. An expired one is removed: it would hide that of the other cache. */
  #freshIn(cache: ByteLru<Entry>, digest: string): Entry | null {
    const entry = cache.get(digest)
    if (entry === undefined) return null
    if (this.#clock.now() < entry.until) return entry
    cache.delete(digest)
    return null
  }

  close(): Promise<void> {
    return this.#server.close()
  }

  async #ask(token: string, digest: string, request: FastifyRequest): Promise<Result> {
    const form = new URLSearchParams({ token, token_type_hint: 'access_token', ...this.#credentials })
    const begun = this.#clock.now()
    const call = {
      method: 'POST' as const,
      headers: [...this.#headers],
      body: Buffer.from(form.toString()),
      needsBody: (status: number) => status === 200,
      endsWithClient: false
    }
    return this.#server.call(request, call, (response) => {
      const result = resultOf(response, this.#options)
      this.#keep(digest, result, response.body!.length, begun)
      return result
    })
  }

  #keep(digest: string, result: Result, bytes: number, begun: number): void {
    const { maxAge, inactiveMaxAge } = this.#options
    const { exp } = result ?? {}
    const left = typeof exp === 'number' ? exp * 1000 - this.#clock.date() : Number.POSITIVE_INFINITY
    const ttl = result === null ? inactiveMaxAge : Math.min(maxAge, left)
    if (ttl <= 0) return
    // Parsed claims take about twice the memory of their text.
    const size = digest.length + (result === null ? 0 : 2 * bytes)
    const cache = result === null ? this.#inactive : this.#active
    cache.set(digest, { result, until: begun + ttl }, size)
  }
}

/** Returns the claims of a response, frozen, since requests share them. Throws an `AuthFailure` if it is none. */
function resultOf({ status, body }: AuthResponse, { clientAuth }: EndpointOptions): Result {
  if (status === 400 || status === 401 || status === 403) {
    const other = clientAuth === 'basic' ? 'post' : 'basic'
    const advice = `check clientId and clientSecret, or set clientAuth: ${other} if the endpoint takes client_secret_${other}`
    throw new AuthFailure('status', `status ${status}: the endpoint refuses the gateway; ${advice}`)
  }
  if (status !== 200) throw new AuthFailure('status', `status ${status}`)
  if (body === null) throw new AuthFailure('malformed', 'the response is too large or incomplete')
  let claims: unknown
  try {
    claims = JSON.parse(body.toString(), (_key, value: unknown) => Object.freeze(value))
  } catch {
    // Without the text of the response, which may hold secrets.
    throw new AuthFailure('malformed', 'the response is not JSON')
  }
  if (typeof claims !== 'object' || claims === null || Array.isArray(claims)) {
    throw new AuthFailure('malformed', 'the response is not a JSON object')
  }
  const { active } = claims as { active?: unknown }
  if (typeof active !== 'boolean') throw new AuthFailure('malformed', '"active" is not a boolean')
  return active ? (claims as Claims) : null
}
