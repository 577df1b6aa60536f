/** Makes the relying party of a route from what the routes of its client share. */
import { readFileSync } from 'node:fs'
import type { ConcernContext } from '../../concern.ts'
import { cookieName, partyId } from './cookie-name.ts'
import { Cookies } from './cookies.ts'
import type { OidcOptions } from './options.ts'
import { Provider } from './provider.ts'
import { RedisSessions } from './redis-sessions.ts'
import { Refresher } from './refresh.ts'
import { RelyingParty } from './relying-party.ts'
import { Seal } from './seal.ts'
import type { SessionStore } from './session.ts'
import { CookieSessions, endedSessions } from './session.ts'

/** `prefix`: that under which the gateway is registered. */
export function partyOf(options: OidcOptions, context: ConcernContext, prefix: string): RelyingParty {
  const { config, stores, log, clock } = context
  const { issuer, clientId, clientSecret, clientAuth, timeout, maxConcurrent, session, refresh, logout, tls } = options
  const id = partyId(issuer, clientId)
  // Under another name, a cookie must not be a session of routes with other settings.
  const purpose = session.cookie === undefined ? id : `${id} ${session.cookie}`
  // The content is part of the key, so that a reload takes effect when the file has changed.
  const ca = tls?.ca === undefined ? undefined : readFileSync(tls.ca, 'utf8')
  const calls = { issuer, clientId, clientSecret, clientAuth, timeout, maxConcurrent, ca }
  const provider = stores.claim(
    'jingwei.oidc-provider',
    calls,
    () => new Provider(calls, log, clock.now),
    (unclaimed) => unclaimed.close()
  )
  const { redis } = config
  const isIndexed = logout !== false && logout.backchannelPath !== undefined
  const shared = session.store === 'redis' ? redis : undefined
  // Its options do not depend on the session's: a reload with other ones must not revive sessions.
  const ended = stores.claim('jingwei.oidc-ended-sessions', id, endedSessions)
  const store = stores.claim<SessionStore>(
    'jingwei.oidc-sessions',
    { id, session, shared, timeout, isIndexed },
    () => {
      const seal = new Seal(session.secrets, `session ${purpose}`)
      if (session.store === 'cookie') return new CookieSessions(seal, session, ended)
      if (redis === undefined) throw new Error('oidc.session.store: redis needs redis.url')
      return new RedisSessions(redis.url, seal, id, session, 3 * timeout, isIndexed, log)
    },
    (unclaimed) => unclaimed.close()
  )
  // Routes of the same client share sessions, so a session has what any of them needs.
  const related = [config.edge, ...config.routes.map(({ edge }) => edge)].flatMap(({ oidc }) =>
    oidc && oidc.issuer === issuer && oidc.clientId === clientId ? [oidc] : []
  )
  const kept = {
    accessToken: [options, ...related].some(({ forwardAccessToken }) => forwardAccessToken),
    refreshToken: refresh !== false,
    idToken: logout !== false && logout.provider
  }
  const refresher = stores.claim(
    'jingwei.oidc-refresher',
    { calls, session, shared, refresh, kept },
    () => new Refresher({ options: { refresh, timeout }, provider, store, kept, now: clock.date })
  )
  const cookies = new Cookies(cookieName(options), session.secure)
  const seal = new Seal(session.secrets, `login ${purpose}`)
  return new RelyingParty({ options, provider, store, refresher, kept, cookies, seal, clock, prefix })
}
