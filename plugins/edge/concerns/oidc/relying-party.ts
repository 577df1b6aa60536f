/** A client of an OpenID provider: begins and completes logins, and ends sessions. Its routes share it. */
import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../../clock.ts'
import { readFirst } from '../../protocol/first-body.ts'
import { hasBody } from '../../protocol/request-body.ts'
import type { Cookies } from './cookies.ts'
import { failureOf, OidcFailure } from './failures.ts'
import { originOf, respond, returnPath, secureEnough } from './navigation.ts'
import type { OidcOptions } from './options.ts'
import { userClaims } from './packing.ts'
import type { Provider } from './provider.ts'
import { isEndpoint, openid } from './provider.ts'
import type { Kept, Refresher, Tokens } from './refresh.ts'
import { deepFrozen, tokenFields } from './refresh.ts'
import type { Seal } from './seal.ts'
import type { Session, SessionStore } from './session.ts'
import { newId } from './session.ts'

/** A login in progress, sealed in a cookie of its own: it binds the provider's response to this browser. */
interface Login {
  readonly state: string
  readonly nonce: string
  readonly verifier: string
  /** Path and query to which the browser goes afterwards. */
  readonly to: string
  readonly redirectUri: string
  /** Milliseconds since 1970. */
  readonly until: number
}

export interface PartyParts {
  readonly options: OidcOptions
  readonly provider: Provider
  readonly store: SessionStore
  readonly refresher: Refresher
  readonly kept: Kept
  readonly cookies: Cookies
  /** Seals logins. */
  readonly seal: Seal
  readonly clock: Clock
  /** Prefix under which the gateway is registered. */
  readonly prefix: string
}

/** Largest body with a logout token, in bytes. */
const largestToken = 16 * 1024

/** Counts the logins of a route by their result. */
export type CountLogin = (result: 'started' | 'completed' | 'failed') => void

export class RelyingParty {
  readonly parts: PartyParts

  constructor(parts: PartyParts) {
    this.parts = parts
  }

  /** Redirects the browser to the provider. Rejects with an `OidcFailure`. */
  async begin(request: FastifyRequest, reply: FastifyReply, target: string, count: CountLogin): Promise<void> {
    const { options, provider, cookies, seal, clock, prefix } = this.parts
    const { session, callbackPath, scopes, authorizationParams } = options
    // The browser would drop the cookie, and be sent to the provider again and again.
    if (session.secure && !secureEnough(request)) throw new OidcFailure('oidc_insecure')
    const client = await provider.client().catch((error: unknown) => {
      throw failureOf(error)
    })
    const { buildAuthorizationUrl, calculatePKCECodeChallenge, randomNonce, randomPKCECodeVerifier, randomState } =
      openid()
    const to = returnPath(target)
    const login: Login = {
      state: cookies.slotFor(request, to) + randomState(),
      nonce: randomNonce(),
      verifier: randomPKCECodeVerifier(),
      to,
      redirectUri: `${originOf(request)}${prefix}${callbackPath}`,
      until: clock.date() + session.loginTimeout
    }
    const url = buildAuthorizationUrl(client, {
      ...authorizationParams,
      response_type: 'code',
      scope: [...new Set(['openid', ...scopes])].join(' '),
      redirect_uri: login.redirectUri,
      state: login.state,
      nonce: login.nonce,
      code_challenge: await calculatePKCECodeChallenge(login.verifier),
      code_challenge_method: 'S256'
    })
    cookies.setLogin(reply, login.state, await seal.seal(login), session.loginTimeout)
    count('started')
    respond(request, reply, 302, url.href)
  }

  /** Completes the login that the provider's response belongs to. Rejects with an `OidcFailure`. */
  async complete(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { options, provider, store, refresher, cookies, clock } = this.parts
    const url = request.raw.url!
    const mark = url.indexOf('?')
    const query = new URLSearchParams(mark === -1 ? '' : url.slice(mark + 1))
    const states = query.getAll('state')
    const login = states.length === 1 ? await this.#loginOf(request, states[0]!) : null
    if (login === null) throw new OidcFailure('oidc_state')
    // A login is used once, whatever comes of it, unless the provider is unavailable: then the user may reload the page.
    const { state, nonce, verifier, redirectUri } = login
    let session: Session
    try {
      const current = new URL(`${redirectUri}?${query}`)
      const checks = { expectedState: state, expectedNonce: nonce, pkceCodeVerifier: verifier, idTokenExpected: true }
      session = await provider.call(request.ip, async (client, library) => {
        const tokens = await library.authorizationCodeGrant(client, current, checks)
        const { sub } = tokens.claims()!
        const more = options.userinfo ? await library.fetchUserInfo(client, tokens.access_token, sub) : {}
        return this.#sessionOf(tokens, more)
      })
    } catch (error) {
      if (!(error as OidcFailure).isOutage) cookies.clearLogin(request, reply, state)
      throw error
    }
    const value = await store.save(session, true)
    const previous = cookies.session(request)
    const old = previous === null ? null : await store.load(previous)
    if (old !== null) {
      refresher.forget(old)
      await store.end(old)
    }
    cookies.clearLogin(request, reply, state)
    cookies.setSession(request, reply, value, this.maxAgeOf(session, clock.date()))
    respond(request, reply, 302, login.to)
  }

  async #loginOf(request: FastifyRequest, state: string): Promise<Login | null> {
    const { cookies, seal, clock } = this.parts
    const sealed = cookies.login(request, state)
    const login = sealed === null ? null : ((await seal.open(sealed)) as Login | null)
    if (login === null || clock.date() >= login.until) return null
    return timingSafeEqual(hash('sha256', login.state, 'buffer'), hash('sha256', state, 'buffer')) ? login : null
  }

  #sessionOf(tokens: Tokens, more: object): Session {
    const { kept, clock } = this.parts
    const now = clock.date()
    const claims = { ...more, ...userClaims(tokens.claims()!, tokens.scope) }
    return deepFrozen({ id: newId(), claims, started: now, seen: now, ...tokenFields(tokens, kept, now) })
  }

  /** Returns the lifetime of a session's cookie. */
  maxAgeOf({ started }: Session, now: number): number {
    const { idleTimeout, lifetime, store } = this.parts.options.session
    const left = started + lifetime - now
    return store === 'redis' ? left : Math.min(left, idleTimeout)
  }

  /** Ends the session, here and at the provider. Rejects with an `OidcFailure`. */
  async logout(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { options, store, refresher, cookies, prefix } = this.parts
    const { logout } = options
    if (logout === false) return
    if (request.headers['sec-fetch-site'] === 'cross-site') throw new OidcFailure('oidc_cross_site')
    const value = cookies.session(request)
    const session = value === null ? null : await store.load(value)
    if (session !== null) {
      refresher.forget(session)
      await store.end(session)
    }
    cookies.clearSession(request, reply)
    const { redirect } = logout
    const isPath = redirect?.startsWith('/') === true
    const target = isPath ? `${originOf(request)}${prefix}${redirect}` : redirect
    const atProvider = logout.provider ? await this.#endSessionUrl(session, target) : null
    if (atProvider !== null) respond(request, reply, 303, atProvider)
    else if (target !== undefined) respond(request, reply, 303, target)
    else respond(request, reply, 200, null, 'You are logged out.\n')
  }

  /** Ends the sessions that a logout token of the provider names. Rejects with an `OidcFailure`, or with `JW_BODY_BUSY`. */
  async endByProvider(request: FastifyRequest, reply: FastifyReply): Promise<void> {
    const { provider, store } = this.parts
    const hold = request.server.bodyMemory.holdFor(request, reply)
    const body = hasBody(request.raw) ? await readFirst(request.raw, largestToken, (bytes) => hold.take(bytes)) : null
    const token = new URLSearchParams(body?.toString() ?? '').get('logout_token')
    if (token === null) throw new OidcFailure('oidc_logout_token', 'no logout_token in the body')
    const { jti, sub, sid } = await provider.verifyLogout(token)
    // A session at the provider is one of several of the user.
    const [claim, value] = sid === undefined ? (['sub', sub] as const) : (['sid', sid] as const)
    if (value === undefined) throw new OidcFailure('oidc_logout_token', 'neither sub nor sid')
    if (!(await store.endAll(claim, value, jti))) throw new OidcFailure('oidc_logout_token', 'it was used before')
    respond(request, reply, 200, null, '')
  }

  /** Returns the provider's URL for the logout; null if it has none, or is unavailable: the user is logged out here. */
  async #endSessionUrl(session: Session | null, target: string | undefined): Promise<string | null> {
    const { provider } = this.parts
    const client = await provider.client().catch(() => null)
    if (client === null || !isEndpoint(client.serverMetadata().end_session_endpoint)) return null
    return openid().buildEndSessionUrl(client, {
      ...(session?.idToken !== undefined && { id_token_hint: session.idToken }),
      ...(target !== undefined && { post_logout_redirect_uri: target })
    }).href
  }
}
