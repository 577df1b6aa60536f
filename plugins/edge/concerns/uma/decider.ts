/**
 * Asks Keycloak whether a token grants a permission. With `maxAge`, permissions that were granted are kept for that time, within
 * a bound in bytes, and requests with the same token and permission share a call.
 */
import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import type { AuthResponse, AuthServer } from '../../bridge/auth-server.ts'
import { AuthFailure } from '../../bridge/auth-server.ts'
import { ByteLru } from '../../byte-lru.ts'
import type { Permission } from './permissions.ts'

export type Verdict = 'granted' | 'denied' | 'invalid'
/** Verdict of a call, `cached`, or `failed` for a call without a verdict. */
export type Outcome = Verdict | 'cached' | 'failed'

interface DeciderOptions {
  readonly audience: string
  /** Milliseconds; 0 to keep nothing. */
  readonly maxAge: number
  readonly cacheSize: number
}

export class Decider {
  readonly #server: AuthServer
  readonly #options: DeciderOptions
  readonly #clock: Clock
  /** Times until which permissions are granted, on the monotonic clock, by the digest of token and permission. */
  readonly #granted: ByteLru<number>
  /** Calls in flight; bounded by those of the server. */
  readonly #pending = new Map<string, Promise<Verdict>>()

  constructor(server: AuthServer, options: DeciderOptions, clock: Clock) {
    this.#server = server
    this.#options = options
    this.#clock = clock
    this.#granted = new ByteLru(options.cacheSize)
  }

  close(): Promise<void> {
    return this.#server.close()
  }

  /** Rejects with an `AuthFailure` if there is no verdict. */
  async decide(request: FastifyRequest, token: string, permission: Permission, count: (outcome: Outcome) => void) {
    if (this.#options.maxAge === 0) return this.#ask(request, token, permission, true, count)
    const key = hash('sha256', `${token} ${permission.text}`, 'base64')
    const until = this.#granted.get(key)
    if (until !== undefined && this.#clock.now() < until) {
      count('cached')
      return 'granted'
    }
    let call = this.#pending.get(key)
    if (call === undefined) {
      const begun = this.#clock.now()
      call = this.#ask(request, token, permission, false, count)
        .then((verdict) => {
          if (verdict === 'granted') this.#keep(key, token, begun)
          else this.#granted.delete(key)
          return verdict
        })
        .finally(() => this.#pending.delete(key))
      this.#pending.set(key, call)
    }
    return call
  }

  #keep(key: string, token: string, begun: number): void {
    const left = expiryOf(token) - this.#clock.date()
    const age = Math.min(this.#options.maxAge, left)
    if (age > 0) this.#granted.set(key, begun + age, key.length)
  }

  async #ask(
    request: FastifyRequest,
    token: string,
    permission: Permission,
    endsWithClient: boolean,
    count: (outcome: Outcome) => void
  ): Promise<Verdict> {
    const headers = [
      ...['content-type', 'application/x-www-form-urlencoded', 'accept', 'application/json'],
      ...['authorization', `Bearer ${token}`]
    ]
    const body = bodyOf(this.#options.audience, permission)
    const call = { method: 'POST' as const, headers, body, needsBody: () => true, endsWithClient }
    try {
      const verdict = await this.#server.call(request, call, (response) => verdictOf(response, permission))
      count(verdict)
      return verdict
    } catch (error) {
      count('failed')
      throw error
    }
  }
}

/** Returns the time of a JWT's `exp`, in milliseconds since 1970; infinity without one. Keycloak verifies the token. */
function expiryOf(token: string): number {
  try {
    const { exp } = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { exp?: unknown }
    return typeof exp === 'number' ? exp * 1000 : Number.POSITIVE_INFINITY
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

function bodyOf(audience: string, { text, isUri }: Permission): Buffer {
  const form = {
    grant_type: 'urn:ietf:params:oauth:grant-type:uma-ticket',
    audience,
    permission: text,
    ...(isUri && { permission_resource_format: 'uri', permission_resource_matching_uri: 'true' }),
    response_mode: 'decision'
  }
  return Buffer.from(new URLSearchParams(form).toString())
}

/** Returns the verdict of a response. Throws an `AuthFailure` if it has none, such as for an unknown resource. */
function verdictOf({ status, body }: AuthResponse, { isOfRequest }: Permission): Verdict {
  const { result, error } = parsed(body)
  if (status === 200) {
    if (result === true) return 'granted'
    throw new AuthFailure('malformed', 'a response with status 200 has no "result": true')
  }
  if (status === 403 && error === 'access_denied') return 'denied'
  if (status === 401 || (status === 400 && error === 'invalid_grant')) return 'invalid'
  // The client has named the resource, or the scope.
  if (status === 400 && isOfRequest && (error === 'invalid_resource' || error === 'invalid_scope')) return 'denied'
  const known = typeof error === 'string' && /^[a-z_]{1,40}$/.test(error) ? `, ${error}` : ''
  throw new AuthFailure('status', `status ${status}${known}`)
}

function parsed(body: Buffer | null): { result?: unknown; error?: unknown } {
  try {
    return Object(JSON.parse(String(body))) as { result?: unknown; error?: unknown }
  } catch {
    return {}
  }
}
