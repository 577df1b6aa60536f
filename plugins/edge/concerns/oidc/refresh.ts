/**
 * Refresh of tokens. A session is refreshed by one request at a time, and its result is kept for those that still come with the
 * old cookie: a refresh token that is used twice makes many providers revoke the session.
 */
import type { TokenEndpointResponse, TokenEndpointResponseHelpers } from 'openid-client'
import { ByteLru } from '../../byte-lru.ts'
import { OidcFailure } from './failures.ts'
import type { OidcOptions } from './options.ts'
import { userClaims } from './packing.ts'
import type { Provider } from './provider.ts'
import type { Session, SessionStore } from './session.ts'

/** A session after a refresh; `value` is that of its cookie. */
export interface Refreshed {
  readonly session: Session
  readonly value: string
}

export type Tokens = TokenEndpointResponse & TokenEndpointResponseHelpers

/** Memory for refreshed sessions, in bytes. */
const recentBytes = 16 * 1024 * 1024
/** Time for which browsers may still send the cookie from before a refresh. */
const recentMs = 60_000
/** Pause after a refresh that failed because the provider is unavailable. */
const pauseMs = 2000
/** Pause between two looks at a session that another node refreshes. */
const pollMs = 50

/** The tokens that a session needs. */
export interface Kept {
  readonly accessToken: boolean
  readonly refreshToken: boolean
  readonly idToken: boolean
}

/** Returns the fields of a session that hold tokens. */
export function tokenFields(tokens: Tokens, kept: Kept, now: number): Partial<Session> {
  const { access_token: accessToken, refresh_token: refreshToken, id_token: idToken, expires_in: seconds } = tokens
  return {
    ...(kept.accessToken && { accessToken }),
    ...(seconds !== undefined && { issued: now, expires: now + seconds * 1000 }),
    ...(kept.refreshToken && refreshToken !== undefined && { refreshToken }),
    ...(kept.idToken && idToken !== undefined && { idToken })
  }
}

interface Parts {
  readonly options: Pick<OidcOptions, 'refresh' | 'timeout'>
  readonly provider: Provider
  readonly store: SessionStore
  readonly kept: Kept
  readonly now: () => number
}

/** Returns the failure of a session for one of a refresh. */
function endedBy(failure: OidcFailure): OidcFailure {
  const { reason, message } = failure
  if (reason === 'oidc_code') return new OidcFailure('oidc_ended', message)
  return reason === 'oidc_response' ? new OidcFailure('oidc_id_token', message) : failure
}

export class Refresher {
  readonly #parts: Parts
  readonly #flights = new Map<string, Promise<Refreshed | null>>()
  readonly #recent = new ByteLru<Refreshed & { readonly until: number }>(recentBytes)
  readonly #paused = new ByteLru<{ readonly error: OidcFailure; readonly until: number }>(recentBytes / 16)

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Forgets a session that has ended. */
  forget({ id }: Session): void {
    this.#recent.delete(id)
  }

  /**
   * Returns the session with fresh tokens; null if it needs none. Rejects with an `OidcFailure` if the session is over, or if
   * its access token has expired and the provider is unavailable.
   */
  async refresh(session: Session, cookie: string, ip: string): Promise<Refreshed | null> {
    const { options, now } = this.#parts
    const { issued = Number.NEGATIVE_INFINITY, expires, refreshToken } = session
    if (options.refresh === false || expires === undefined) return null
    // A token that lives no longer than `before` would be refreshed by each request.
    if (now() < Math.max(expires - options.refresh.before, (issued + expires) / 2)) return null
    const recent = this.#recent.get(session.id)
    if (recent !== undefined && now() < recent.until && recent.session.expires !== expires) return recent
    if (refreshToken === undefined) return null
    const flight = this.#flights.get(session.id) ?? this.#begin(session, cookie, ip)
    try {
      return await flight
    } catch (error) {
      const failure = error as OidcFailure
      // The access token is still valid: a later request tries again.
      if (failure.isOutage && now() < expires) return null
      if (failure.reason === 'oidc_id_token') await this.#parts.store.end(session)
      else if (options.refresh.onFailure === 'keep') return null
      throw failure
    }
  }

  #begin(session: Session, cookie: string, ip: string): Promise<Refreshed | null> {
    const flight = this.#run(session, cookie, ip).finally(() => this.#flights.delete(session.id))
    this.#flights.set(session.id, flight)
    return flight
  }

  async #run(session: Session, cookie: string, ip: string): Promise<Refreshed | null> {
    const { options, store, now } = this.#parts
    const paused = this.#paused.get(session.id)
    if (paused !== undefined && now() < paused.until) throw paused.error
    const until = performance.now() + options.timeout
    for (;;) {
      const unlock = await store.lock(session)
      if (unlock === null && performance.now() >= until) {
        throw new OidcFailure('oidc_timeout', 'another node has not refreshed the session in time')
      }
      try {
        // Another node may have refreshed the session since it was loaded.
        const current = await store.load(cookie)
        if (current === null) throw new OidcFailure('oidc_session')
        if (current.expires !== session.expires) return { session: current, value: cookie }
        if (unlock !== null) return await this.#ask(current, ip)
      } finally {
        unlock?.()
      }
      await new Promise((resolve) => setTimeout(resolve, pollMs))
    }
  }

  async #ask(session: Session, ip: string): Promise<Refreshed> {
    const { provider, store, kept, now } = this.#parts
    const refreshToken = session.refreshToken!
    const tokens = await provider
      .call(ip, (client, { refreshTokenGrant }) => refreshTokenGrant(client, refreshToken))
      .catch((failure: OidcFailure) => {
        const error = endedBy(failure)
        this.#paused.set(session.id, { error, until: now() + pauseMs }, session.id.length)
        throw error
      })
    const claims = tokens.claims()
    // OpenID Connect Core, 12.2.
    if (claims !== undefined && claims.sub !== session.claims.sub) {
      throw new OidcFailure('oidc_id_token', 'the refreshed ID token is of another user')
    }
    const fresh = { ...session, ...tokenFields(tokens, kept, now()), seen: now() }
    // Claims of the userinfo endpoint stay.
    const merged = claims && { ...session.claims, ...userClaims(claims, tokens.scope) }
    const refreshed = deepFrozen(merged === undefined ? fresh : { ...fresh, claims: merged })
    const result = { session: refreshed, value: await store.save(refreshed, false) }
    this.#recent.set(session.id, { ...result, until: now() + recentMs }, 2 * JSON.stringify(refreshed).length)
    return result
  }
}

/** Freezes a session: requests share it. */
export function deepFrozen<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  for (const inner of Object.values(value)) deepFrozen(inner)
  return Object.freeze(value)
}
