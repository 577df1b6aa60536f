/** Verifies logout tokens of the provider (OpenID Connect Back-Channel Logout 1.0, 2.6). */
import type { createRemoteJWKSet } from 'jose'
import type { CustomFetch } from 'openid-client'
import { onFirstUse } from '../../../on-first-use.ts'
import { OidcFailure } from './failures.ts'

const jose = onFirstUse<typeof import('jose')>('jose')

/** Member of `events` in a logout token. */
const logoutEvent = 'http://schemas.openid.net/event/backchannel-logout'
/** Greatest age of a logout token, and tolerated difference between clocks, in seconds. */
const [greatestAge, clockSkew] = [120, 30]
/** Longest time for which a logout token is accepted, in seconds: the clock of the provider may be ahead. */
export const logoutTokenAge = greatestAge + 2 * clockSkew

/** Errors of jose that say nothing of the token: the key set cannot be fetched, or is none. */
const ofKeySet = new Set<unknown>(['ERR_JOSE_GENERIC', 'ERR_JWKS_TIMEOUT', 'ERR_JWKS_INVALID'])

/** Claims of a logout token: the user, or the session at the provider, or both. */
export interface LogoutClaims {
  readonly jti: string
  readonly sub?: string
  readonly sid?: string
}

export class LogoutTokens {
  readonly #clientId: string
  readonly #fetch: CustomFetch
  #keys: { readonly url: string; readonly set: ReturnType<typeof createRemoteJWKSet> } | null = null

  constructor(clientId: string, fetch: CustomFetch) {
    this.#clientId = clientId
    this.#fetch = fetch
  }

  /** Returns the claims of a token. Rejects with an `OidcFailure`. */
  async verify(
    token: string,
    provider: { readonly issuer: string; readonly jwks_uri?: string }
  ): Promise<LogoutClaims> {
    const { issuer, jwks_uri: url } = provider
    if (url === undefined) throw new OidcFailure('oidc_malformed', 'the metadata have no jwks_uri')
    const { createRemoteJWKSet, customFetch, jwtVerify } = jose()
    if (this.#keys?.url !== url) {
      this.#keys = { url, set: createRemoteJWKSet(new URL(url), { [customFetch]: this.#fetch as typeof fetch }) }
    }
    const rules = {
      issuer,
      audience: this.#clientId,
      maxTokenAge: greatestAge,
      clockTolerance: clockSkew,
      requiredClaims: ['jti', 'exp']
    }
    try {
      const { payload } = await jwtVerify(token, this.#keys.set, rules)
      const { jti, sub, sid, nonce, events } = payload
      const isLogout = typeof events === 'object' && events !== null && Object.hasOwn(events, logoutEvent)
      if (!isLogout || nonce !== undefined) throw new OidcFailure('oidc_logout_token', 'not a logout token')
      if (typeof jti !== 'string') throw new OidcFailure('oidc_logout_token', 'its jti is no text')
      return { jti, ...(typeof sub === 'string' && { sub }), ...(typeof sid === 'string' && { sid }) }
    } catch (thrown) {
      if (thrown instanceof OidcFailure) throw thrown
      const { code, message } = thrown as Error & { code?: unknown }
      throw new OidcFailure(ofKeySet.has(code) ? 'oidc_malformed' : 'oidc_logout_token', message)
    }
  }
}
