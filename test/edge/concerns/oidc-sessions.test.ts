// slow: starts OpenID providers
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import {
  Browser,
  guardedByLogin,
  newSecret,
  pageLoad,
  seenBy,
  startProvider
} from '../../helpers/edge/openid-provider.ts'
import { echo, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startService } from '../../helpers/gateway.ts'

const fetching = { 'sec-fetch-mode': 'cors' }

t.test('a session ends after idleTimeout without a request, and after its lifetime in any case', async (t) => {
  const clock = { ahead: 0 }
  const session = { idleTimeout: '1h', lifetime: '3h' }
  const service = await startService((_request, response) => {
    response.writeHead(200, { 'cache-control': 'max-age=60', 'set-cookie': ['a=1', 'b=2'] }).end('ok')
  })
  t.teardown(service.close)
  const { browser, lines } = await guardedByLogin(t, await startProvider(t), { session, clock, service: service.url })
  const [amy, bob] = [browser(), browser()]
  await amy.visit('/app')
  await bob.visit('/app')
  const [name, first] = [...amy.cookies].find(([each]) => each.startsWith('__Host-'))!
  clock.ahead += 60_000
  await amy.send('/app')
  t.equal(amy.cookies.get(name)?.value, first.value, 'the cookie is renewed after a tenth of idleTimeout')
  for (let minutes = 1; minutes < 3 * 60; minutes += 50) {
    const { status, headers } = await amy.send('/app', { headers: fetching })
    t.equal(status, 200, `${minutes} minutes`)
    const isRenewed = headers['set-cookie']?.length === 3
    t.equal(headers['cache-control'], isRenewed ? 'no-store' : 'max-age=60', 'no cache stores a cookie')
    clock.ahead += 50 * 60_000
  }
  t.not(amy.cookies.get(name)?.value, first.value)
  const late = await amy.send('/app', { headers: fetching })
  t.match(JSON.parse(late.body.toString()), { statusCode: 401, code: 'JW_SESSION_INVALID' }, 'lifetime')
  t.strictSame([...amy.cookies.keys()], ['a', 'b'], 'the cookies are deleted')
  t.equal((await bob.send('/app', { headers: fetching })).status, 401, 'idleTimeout')
  await eventually(() => lines().filter(({ reason }) => reason === 'oidc_expired').length === 2)
  t.equal((await bob.visit('/app')).status, 200, 'a page load logs in again')
})

t.test('secrets rotate without ending sessions', async (t) => {
  const provider = await startProvider(t)
  const [old, fresh] = [newSecret(), newSecret()]
  const before = await guardedByLogin(t, provider, { session: { secrets: [old] } })
  const amy = before.browser()
  await amy.visit('/app')
  const { cookie } = amy
  const status = async (secrets: string[], value = cookie) => {
    const { browser } = await guardedByLogin(t, provider, { session: { secrets } })
    return (await browser().send('/app', { headers: { cookie: value } })).status
  }
  t.equal(await status([fresh, old]), 200)
  t.equal(await status([fresh]), 401, 'the old secret is removed')
  const after = await guardedByLogin(t, provider, { session: { secrets: [fresh, old] } })
  const bob = after.browser()
  await bob.visit('/app')
  t.equal(await status([fresh], bob.cookie), 200, 'the first secret encrypts')
})

t.test('forged and damaged cookies are no session', async (t) => {
  const provider = await startProvider(t)
  const { browser, port, lines } = await guardedByLogin(t, provider)
  const other = await guardedByLogin(t, provider, { oidc: { issuer: `${provider.issuer}/` } })
  const [amy, bob] = [browser(), browser()]
  await amy.visit('/app')
  provider.state.user = 'bob'
  await bob.visit('/app')
  const begun = browser()
  await begun.send('/app', { headers: pageLoad })
  const [name, { value }] = [...amy.cookies][0]!
  const [, login] = [...begun.cookies][0]!
  const parts = value.split('.')
  const none = `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from('{"claims":{"sub":"eve"}}').toString('base64url')}.`
  const flipped = `${value.slice(0, -1)}${value.endsWith('A') ? 'Q' : 'A'}`
  const cases: [string, string][] = [
    ['nothing', `${name}=`],
    ['a text', `${name}=abc`],
    ['an unsigned token', `${name}=${none}`],
    ['a changed tag', `${name}=${flipped}`],
    ['a changed header', `${name}=${['eyJhbGciOiJkaXIifQ', ...parts.slice(1)].join('.')}`],
    ['the cookie of a login', `${name}=${login.value}`],
    ['two sessions', `${amy.cookie}; ${bob.cookie}`],
    ['the same session twice', `${amy.cookie}; ${amy.cookie}`],
    ['a further chunk', `${amy.cookie}; ${name}.1=x`],
    ['a chunk alone', `${name}.1=${value}x`],
    ['a long cookie', `${name}=${'a'.repeat(9000)}`]
  ]
  for (const [what, cookie] of cases) {
    const received = await browser().send('/app', { headers: { cookie } })
    t.match(JSON.parse(received.body.toString()), { code: 'JW_SESSION_INVALID' }, what)
  }
  const foreign = await new Browser(t, 'HTTP/1.1', other.port).send('/app', { headers: { cookie: amy.cookie } })
  t.match(JSON.parse(foreign.body.toString()), { code: 'JW_LOGIN_REQUIRED' }, 'a cookie of another client')
  const spelt = await browser().send('/app', { headers: { cookie: amy.cookie.replace('__Host-', '__host-') } })
  t.equal(spelt.status, 401, 'another spelling of the name')
  t.equal((await new Browser(t, 'HTTP/1.1', port).send('/app', { headers: { cookie: amy.cookie } })).status, 200)
  await eventually(() => lines().filter(({ reason }) => reason === 'oidc_session').length === cases.length)
})

t.test('each login makes a new session, and abandoned logins do not pile up', async (t) => {
  const { browser } = await guardedByLogin(t, await startProvider(t))
  const amy = browser()
  await amy.visit('/app')
  const before = amy.cookie
  await amy.visit('/oidc/login?return_to=/app')
  t.not(amy.cookie, before)
  t.equal((await browser().send('/app', { headers: { cookie: before } })).status, 401, 'the session before has ended')
  const tabs = browser()
  for (let tab = 0; tab < 12; tab++) await tabs.send('/app', { headers: pageLoad })
  t.equal(tabs.cookies.size, 3, 'a browser has as many logins in progress')
  t.equal((await tabs.visit('/app')).status, 200)
  const restored = browser()
  const open = Array.from({ length: 30 }, (_, i) => {
    const path = `/app?${'x'.repeat(i % 2 === 0 ? 900 : 1900)}`
    return restored.send(path, { headers: pageLoad })
  })
  for (const { status } of await Promise.all(open)) t.equal(status, 302)
  t.ok(restored.cookies.size <= 4 && restored.cookie.length < 10_000, `${restored.cookie.length} bytes of cookies`)
  for (const length of [10, 900, 1900]) t.equal((await restored.visit(`/app?${'y'.repeat(length)}`)).status, 200)
})

t.test('a large session is split into several cookies, and one that is too large fails the login', async (t) => {
  const provider = await startProvider(t)
  provider.state.padding = 6000
  const split = await guardedByLogin(t, provider, {
    session: { maxSize: '14kb' },
    oidc: { logout: false, userinfo: true }
  })
  const amy = split.browser()
  const page = await amy.visit('/app')
  t.equal(page.status, 200)
  t.ok(amy.cookies.size >= 3, `${amy.cookies.size} cookies`)
  t.ok([...amy.cookies].every(([name, { value, attributes }]) => name.length + value.length + attributes.length < 4096))
  t.notOk(seenBy(page).headers.cookie)
  provider.state.padding = 0
  await amy.visit('/oidc/login?return_to=/app')
  t.equal(amy.cookies.size, 1, 'the chunks of a larger session are deleted')
  t.equal((await amy.send('/app')).status, 200)
  provider.state.padding = 20_000
  const bob = split.browser()
  const failed = await bob.visit('/app')
  t.match(JSON.parse(failed.body.toString()), { statusCode: 500, code: 'JW_SESSION_TOO_LARGE' })
  await eventually(() => split.lines().some(({ reason }) => reason === 'oidc_size'))
})

t.test('tokens that live no longer than refresh.before are not refreshed by each request', async (t) => {
  const provider = await startProvider(t)
  provider.state.accessTokenTtl = 30
  const clock = { ahead: 0 }
  const { browser } = await guardedByLogin(t, provider, { clock })
  const amy = browser()
  await amy.visit('/app')
  const calls = () => provider.seen.filter((each) => each === 'POST /token').length
  t.equal(calls(), 1)
  for (let i = 0; i < 10; i++) t.equal((await amy.send('/app')).status, 200)
  t.equal(calls(), 1)
  clock.ahead = 16_000
  for (let i = 0; i < 10; i++) t.equal((await amy.send('/app')).status, 200)
  t.equal(calls(), 2)
})

t.test('tokens are refreshed once, and the service gets the current access token', async (t) => {
  const provider = await startProvider(t)
  provider.state.accessTokenTtl = 600
  const clock = { ahead: 0 }
  const { browser, metrics } = await guardedByLogin(t, provider, { clock, oidc: { forwardAccessToken: true } })
  const amy = browser()
  const page = await amy.visit('/app')
  const bearer = seenBy(page).headers.authorization
  t.match(bearer, /^Bearer \S{20,}$/)
  const forged = await amy.send('/app', { headers: { authorization: 'Bearer forged' } })
  t.equal(seenBy(forged).headers.authorization, bearer, "the client's own header is replaced")
  const refreshes = () => provider.seen.filter((each) => each === 'POST /token').length - 1
  t.equal(refreshes(), 0)
  clock.ahead += 580_000
  const old = amy.cookie
  const at = () => browser().send('/app', { headers: { ...fetching, cookie: old } })
  const all = await Promise.all(Array.from({ length: 20 }, at))
  const tokens = new Set(all.map((each) => seenBy(each).headers.authorization))
  t.equal(tokens.size, 1)
  t.notOk(tokens.has(bearer), 'a new token')
  t.equal(refreshes(), 1, 'twenty requests share one refresh')
  const later = await at()
  t.equal(seenBy(later).headers.authorization, [...tokens][0], 'a request with the old cookie gets the result')
  t.equal(refreshes(), 1, 'the refresh token is not used twice')
  t.ok(later.headers['set-cookie'], 'and the new cookie')
  await amy.send('/app')
  t.not(amy.cookie, old)
  clock.ahead += 300_000
  t.equal((await amy.send('/app')).status, 200)
  t.equal(refreshes(), 1)
  clock.ahead += 290_000
  t.equal((await amy.send('/app')).status, 200, 'the second refresh uses the second refresh token')
  t.equal(refreshes(), 2)
  t.match(await metrics(), 'jingwei_edge_oidc_sessions_total{route="app",result="refreshed"}')
})

t.test('a refresh that fails ends the session, or keeps it', async (t) => {
  for (const onFailure of ['end', 'keep']) {
    const provider = await startProvider(t)
    provider.state.accessTokenTtl = 600
    const clock = { ahead: 0 }
    const oidc = { forwardAccessToken: true, timeout: '2s', refresh: { onFailure } }
    const { browser, lines } = await guardedByLogin(t, provider, { clock, oidc })
    const [amy, bob] = [browser(), browser()]
    await amy.visit('/app')
    await bob.visit('/app')
    provider.state.intercept = (request) => request.url === '/token'
    clock.ahead += 590_000
    t.equal((await amy.send('/app')).status, 200, `${onFailure}: the access token is still valid`)
    clock.ahead += 20_000
    const down = await amy.send('/app', { headers: fetching })
    t.equal(down.status, onFailure === 'end' ? 503 : 200, `${onFailure}: the provider is unavailable`)
    if (onFailure === 'keep') t.notOk(seenBy(down).headers.authorization)
    t.ok(amy.cookies.size > 0, 'an outage ends no session')
    const calls = provider.seen.length
    await Promise.all(Array.from({ length: 10 }, () => amy.send('/app')))
    t.equal(provider.seen.length, calls, 'an unavailable provider is not called for each request')
    provider.state.intercept = null
    clock.ahead += 3000
    const again = await amy.send('/app')
    t.equal(again.status, 200, `${onFailure}: the provider is back`)
    t.match(seenBy(again).headers.authorization, /^Bearer /)
    provider.state.intercept = (request, response) => {
      if (request.url === '/token') {
        response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}')
      }
      return request.url === '/token'
    }
    const ended = await bob.send('/app', { headers: fetching })
    t.equal(ended.status, onFailure === 'end' ? 401 : 200, `${onFailure}: the provider refuses`)
    if (onFailure === 'keep') continue
    t.equal(bob.cookies.size, 0)
    await eventually(() => lines().some(({ reason }) => reason === 'oidc_ended'))
  }
})

t.test('a session without a refresh token ends with the access token that the service needs', async (t) => {
  const provider = await startProvider(t)
  provider.state.accessTokenTtl = 600
  const clock = { ahead: 0 }
  const [needs, needsNot] = [
    await guardedByLogin(t, provider, { clock, oidc: { forwardAccessToken: true, refresh: false } }),
    await guardedByLogin(t, provider, { clock, oidc: { refresh: false } })
  ]
  const [amy, bob] = [needs.browser(), needsNot.browser()]
  await amy.visit('/app')
  await bob.visit('/app')
  clock.ahead += 601_000
  t.equal((await amy.send('/app', { headers: fetching })).status, 401)
  t.equal((await bob.send('/app', { headers: fetching })).status, 200)
})

t.test('a logout ends the session here and at the provider', async (t) => {
  const provider = await startProvider(t)
  const { browser, lines } = await guardedByLogin(t, provider, { oidc: { logout: { redirect: '/bye' } } })
  const amy = browser()
  await amy.visit('/app')
  const { cookie } = amy
  const cross = await amy.send('/oidc/logout', { headers: { ...pageLoad, 'sec-fetch-site': 'cross-site' } })
  t.match(
    JSON.parse(cross.body.toString()),
    { statusCode: 403, code: 'JW_LOGOUT_REFUSED' },
    'another site cannot log out'
  )
  t.equal((await amy.send('/app')).status, 200)
  const { hops } = await amy.visit('/oidc/logout')
  const [first] = hops.map((hop) => new URL(hop))
  t.equal(`${first?.origin}${first?.pathname}`, `${provider.issuer}/session/end`)
  t.equal(first?.searchParams.get('post_logout_redirect_uri'), `${amy.origin}/bye`)
  t.ok(first?.searchParams.get('id_token_hint'))
  t.match(hops.at(-1), `${amy.origin}/bye`)
  t.equal(amy.cookies.size, 0)
  const copy = await browser().send('/app', { headers: { cookie } })
  t.match(JSON.parse(copy.body.toString()), { code: 'JW_SESSION_INVALID' }, 'this node refuses copies of the cookie')
  provider.state.user = 'bob'
  const again = await amy.visit('/app')
  t.equal(again.status, 200)
  await eventually(() => lines().some(({ consumer }) => consumer === 'bob'))
  t.match(await browser().send('/oidc/logout', { method: 'POST', body: 'a=b' }), { status: 303 }, 'without a session')
  const put = await browser().send('/oidc/logout', { method: 'PUT' })
  t.match(put, { status: 405, headers: { allow: /POST/ } })
  const local = await guardedByLogin(t, provider, { oidc: { logout: { provider: false, path: '/out' } } })
  const cleo = local.browser()
  await cleo.visit('/app')
  const out = await cleo.send('/out')
  t.match(out, { status: 200, headers: { 'cache-control': 'no-store' } })
  t.equal(out.body.toString(), 'You are logged out.\n')
  t.equal(cleo.cookies.size, 0)
})

t.test('shadow mode redirects nobody', async (t) => {
  const { browser, metrics } = await guardedByLogin(t, await startProvider(t), { oidc: { mode: 'shadow' } })
  const amy = browser()
  const page = await amy.visit('/app')
  t.match(page, { status: 200, hops: [] })
  t.equal(amy.cookies.size, 0)
  t.match(await metrics(), 'jingwei_edge_shadow_refusals_total{concern="oidc",route="app"} 1')
})

t.test('a WebSocket needs a session, whose cookie the service does not get', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const provider = await startProvider(t)
  const { browser, port } = await guardedByLogin(t, provider, { service: service.url })
  const amy = browser()
  await amy.visit('/app')
  await t.rejects(open(port, '/app', ['Accept: text/html']), { message: /^HTTP\/1\.1 401 / })
  const { peer } = await open(port, '/app', [`Cookie: a=1; ${amy.cookie}`])
  peer.send(opcodes.text, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  t.equal(service.requests[0]?.headers.cookie, 'a=1')
  peer.close(1000)
})

t.test('the gateway serves the callback on the hosts of the route, whatever its path', async (t) => {
  const provider = await startProvider(t)
  const { browser } = await guardedByLogin(t, provider, {
    routes: [{ name: 'rest', match: { path: '/' }, service: 'any' }]
  })
  const amy = browser()
  t.equal((await amy.visit('/app')).status, 200)
  const post = await amy.send('/oidc/callback?code=a&state=b', { method: 'POST', body: 'a' })
  t.match(JSON.parse(post.body.toString()), { code: 'JW_LOGIN_INVALID' }, 'the service does not get it')
  t.match(await amy.send('/oidc/callback/x'), { status: 200 }, 'paths below belong to other routes')
})

t.test('plain HTTP from another host would lose the cookie, so it begins no login', async (t) => {
  const provider = await startProvider(t)
  const { port, lines } = await guardedByLogin(t, provider, { config: { listen: { trustProxy: ['127.0.0.1'] } } })
  const plain = new Browser(t, 'HTTP/1.1', port, 'www.example.com')
  const refused = await plain.send('/app', { headers: pageLoad })
  t.match(JSON.parse(refused.body.toString()), { statusCode: 400, code: 'JW_LOGIN_INSECURE' })
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_insecure'))
  provider.allow('https://www.example.com/oidc/callback')
  const proxied = await plain.send('/app', { headers: { ...pageLoad, 'x-forwarded-proto': 'https' } })
  t.equal(proxied.status, 302)
  const { searchParams } = new URL(String(proxied.headers.location))
  t.equal(searchParams.get('redirect_uri'), 'https://www.example.com/oidc/callback', 'behind a proxy that ends TLS')
})

t.test('faults of the configuration', async (t) => {
  const session = '{ secrets: [a secret that is long enough for tests] }'
  const faultOf = (edge: string, routes = '') => {
    try {
      parseConfig(
        `services: { a: { instances: [http://127.0.0.1:1] } }\nroutes: [{ name: a, match: { path: / }, service: a, edge: { oidc: { ${edge} } } }${routes}]`,
        'gateway.yaml',
        {}
      )
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const warningsOf = (session: string) => {
    const found: string[] = []
    const oidc = `issuer: https://id.example.com, clientId: a, session: ${session}`
    parseConfig(`edge: { oidc: { ${oidc} } }`, 'gateway.yaml', {}, ({ message }) => void found.push(message))
    return found
  }
  t.strictSame(warningsOf(session), [])
  t.match(warningsOf(session.replace('{', '{ maxSize: 15kb,')), [/larger than listen.limits.headers/])
  t.match(warningsOf(session.replace('{', '{ secure: false,')), [/sent over plain HTTP/])
  const good = `issuer: https://id.example.com, clientId: a, session: ${session}`
  t.equal(faultOf(good), '')
  const cases: [string, RegExp][] = [
    [`${good}, tls: { ca: nowhere.pem }`, /oidc\.tls\.ca: no such file/],
    [`${good}, ca: a.pem`, /write tls: { ca: FILE }/],
    [good.replace('https', 'ftp'), /oidc\.issuer: expected a URL/],
    [good.replace('.com', '.com/?a=b'), /an issuer has no query/],
    [good.replace('a secret that is long enough for tests', 'short'), /secrets\[0\]/],
    [good.replace(session, '{ secrets: [] }'), /secrets/],
    [good.replace(session, session.replace('{', '{ store: redis,')), /needs the top-level "redis", which is not set/],
    [good.replace(session, session.replace('{', '{ idleTimeout: 2d,')), /is longer than lifetime/],
    [`${good}, callbackPath: /a, loginPath: /a`, /must differ: \/a/],
    [`${good}, callbackPath: "/a/*"`, /expected a path such as/],
    [`${good}, authorizationParams: { state: a }`, /the gateway sets this parameter/],
    [`${good}, forward: { sub: host }`, /"host" is set by the gateway itself/],
    [`${good}, logout: { redirect: //evil.example }`, /expected a path or a URL/],
    [`${good}, discovery: https://id.example.com`, /write issuer/]
  ]
  for (const [edge, message] of cases) t.match(faultOf(edge), message)
  const other = `, { name: b, match: { path: /b }, service: a, edge: { oidc: { ${good.replace('a secret', 'other text')} } } }`
  t.match(faultOf(good, other), /uses the same cookie as/, 'two routes with the same cookie')
  const apart = other.replace('secrets', 'cookie: b, secrets')
  t.match(faultOf(good, apart), /callbackPath: "\/oidc\/callback" is also a path of another client/)
  const paths = 'callbackPath: /b/callback, logout: { path: /b/logout }, session'
  t.equal(faultOf(good, apart.replace('session', paths)), '')
})
