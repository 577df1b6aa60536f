// slow: starts OpenID providers
/** Token responses of the provider that cannot be verified, and the stored form of sessions. */
import type { ServerResponse } from 'node:http'
import t from 'tap'
import { partyId } from '../../../plugins/edge/concerns/oidc/cookie-name.ts'
import { packed, unpacked } from '../../../plugins/edge/concerns/oidc/packing.ts'
import { Seal } from '../../../plugins/edge/concerns/oidc/seal.ts'
import type { TestProvider } from '../../helpers/edge/openid-provider.ts'
import {
  client,
  guardedByLogin,
  newSecret,
  pageLoad,
  seenBy,
  startProvider,
  untilCallback
} from '../../helpers/edge/openid-provider.ts'
import { eventually } from '../../helpers/eventually.ts'

const fetching = { 'sec-fetch-mode': 'cors' }
const grants = ({ seen }: TestProvider) => seen.filter((each) => each === 'POST /token').length

/** Ways in which the keys of a provider are unavailable. */
const outages: readonly [what: string, respond: (response: ServerResponse) => void][] = [
  ['503', (response) => void response.writeHead(503).end()],
  ['no response', (response) => void response.destroy()],
  ['no JSON', (response) => void response.writeHead(200, { 'content-type': 'application/json' }).end('{')]
]

for (const [what, respond] of outages) {
  t.test(`without the keys of the provider (${what}), a refresh ends no session`, async (t) => {
    const provider = await startProvider(t)
    provider.state.accessTokenTtl = 600
    const oidc = { forwardAccessToken: true }
    const first = await guardedByLogin(t, provider, { oidc })
    const amy = first.browser()
    const login = await amy.visit('/app')
    // A second node, which has not fetched the keys yet.
    const clock = { ahead: 590_000 }
    const second = await guardedByLogin(t, provider, { oidc, clock })
    const same = second.browser()
    for (const [name, cookie] of amy.cookies) same.cookies.set(name, cookie)
    const before = grants(provider)
    provider.state.intercept = ({ url }, response) => {
      if (url === '/jwks') respond(response)
      return url === '/jwks'
    }
    const early = await same.send('/app', { headers: fetching })
    t.equal(early.status, 200, 'the access token is still valid')
    t.equal(seenBy(early).headers.authorization, seenBy(login).headers.authorization)
    clock.ahead += 20_000
    t.equal((await same.send('/app', { headers: fetching })).status, 503)
    t.ok(same.cookies.size > 0)
    provider.state.intercept = null
    clock.ahead += 3000
    const refreshed = await same.send('/app', { headers: fetching })
    t.equal(refreshed.status, 200)
    t.match(seenBy(refreshed).headers.authorization, /^Bearer /)
    t.not(seenBy(refreshed).headers.authorization, seenBy(login).headers.authorization)
    t.equal(grants(provider), before + 1, 'the refresh token was used once')
    clock.ahead += 560_000
    t.equal((await same.send('/app', { headers: fetching })).status, 200)
    t.equal(grants(provider), before + 2, 'the access token is valid since the provider has issued it')
  })

  t.test(`without the keys of the provider (${what}), a reload completes the login later`, async (t) => {
    const provider = await startProvider(t)
    const { browser } = await guardedByLogin(t, provider)
    const amy = browser()
    const { callback } = await untilCallback(amy)
    provider.state.intercept = ({ url }, response) => {
      if (url === '/jwks') respond(response)
      return url === '/jwks'
    }
    t.equal((await amy.send(callback, { headers: pageLoad })).status, 503)
    provider.state.intercept = null
    t.match(await amy.send(callback, { headers: pageLoad }), { status: 302, headers: { location: '/app' } })
    t.equal((await amy.send('/app', { headers: fetching })).status, 200)
    t.equal(grants(provider), 1, 'the code was used once')
    t.equal((await amy.send(callback, { headers: pageLoad })).status, 400, 'the login is over')
  })
}

t.test('a refresh with a wrong ID token ends the session, whatever onFailure', async (t) => {
  for (const onFailure of ['end', 'keep']) {
    for (const sub of ['amy', 'bob']) {
      const provider = await startProvider(t)
      provider.state.accessTokenTtl = 600
      const clock = { ahead: 0 }
      const { browser, lines } = await guardedByLogin(t, provider, { clock, oidc: { refresh: { onFailure } } })
      const amy = browser()
      await amy.visit('/app')
      const { cookie } = amy
      provider.state.intercept = ({ url }, response) => {
        if (url !== '/token') return false
        const now = Math.floor(Date.now() / 1000)
        const claims = { iss: provider.issuer, sub, aud: client.id, iat: now, exp: now + 60 }
        const parts = [{ alg: 'RS256', kid: 'one' }, claims].map((part) => Buffer.from(JSON.stringify(part)))
        const idToken = [...parts, Buffer.alloc(256, 1)].map((part) => part.toString('base64url')).join('.')
        const body = { access_token: 'a', token_type: 'Bearer', expires_in: 600, id_token: idToken }
        response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
        return true
      }
      clock.ahead += 590_000
      const ended = await amy.send('/app', { headers: fetching })
      t.match(JSON.parse(ended.body.toString()), { code: 'JW_SESSION_INVALID' }, `${onFailure} ${sub}`)
      t.equal(amy.cookies.size, 0)
      provider.state.intercept = null
      clock.ahead += 3000
      const copy = await amy.send('/app', { headers: { ...fetching, cookie } })
      t.equal(copy.status, 401, 'nor does a copy of the cookie serve')
      await eventually(() => lines().some(({ reason }) => reason === 'oidc_id_token'))
    }
  }
})

t.test('a stored session has each claim once', async (t) => {
  const claims = { sub: 'amy', iss: 'https://id', roles: ['a', { b: null }], iat: 1, exp: 2, nonce: 'n', left: 'out' }
  const idToken = ['{}', JSON.stringify(claims), 'x'].map((part) => Buffer.from(part).toString('base64url')).join('.')
  const own = { scope: 'openid', email: 'a@b', left: 'changed', __proto__: { not: 'own' } }
  const session = {
    id: 'one',
    claims: { ...own, sub: 'amy', iss: 'https://id', roles: ['a', { b: null }] },
    idToken
  }
  t.strictSame(packed(session).claims, { scope: 'openid', email: 'a@b', left: 'changed' })
  t.strictSame(unpacked(packed(session)), session)
  t.ok(Object.isFrozen((unpacked(packed(session)).claims.roles as unknown[])[1]))
  t.strictSame(unpacked(session), session, 'a session that was stored with all claims')
  const { idToken: _, ...without } = session
  t.strictSame(packed(without), without)
  t.strictSame(unpacked(without), without)
})

t.test('cookies with all claims stay valid', async (t) => {
  const provider = await startProvider(t)
  const secret = newSecret()
  const { browser } = await guardedByLogin(t, provider, {
    session: { secrets: [secret] },
    oidc: { forward: { sub: 'x-id', email: 'x-email' } }
  })
  const amy = browser()
  t.match(seenBy(await amy.visit('/app')).headers, { 'x-id': 'amy', 'x-email': 'amy@example.org' })
  const seal = new Seal([secret], `session ${partyId(provider.issuer, client.id)}`)
  const value = [...amy.cookies].map(([, cookie]) => cookie.value).join('')
  const stored = (await seal.open(value)) as { claims: object; idToken: string }
  t.strictSame(Object.keys(stored.claims), ['scope'], 'the ID token has the other ones')
  const [, payload] = stored.idToken.split('.')
  const all = { ...stored, claims: { ...JSON.parse(Buffer.from(payload!, 'base64url').toString()), email: 'old@b' } }
  const [name] = [...amy.cookies][0]!
  const old = await browser().send('/app', {
    headers: { ...fetching, cookie: `${name}=${await seal.seal(all)}` }
  })
  t.match(seenBy(old).headers, { 'x-id': 'amy', 'x-email': 'old@b' })
})
