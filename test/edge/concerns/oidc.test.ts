// slow: starts an OpenID provider, and TLS listeners
import { createSign, generateKeyPairSync } from 'node:crypto'
import { copyFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import t from 'tap'
import { authority, folderFor } from '../../helpers/certificates.ts'
import { protocols } from '../../helpers/edge/asking-client.ts'
import {
  Browser,
  client,
  guardedByLogin,
  newSecret,
  pageLoad,
  seenBy,
  startProvider,
  untilCallback
} from '../../helpers/edge/openid-provider.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startEcho } from '../../helpers/gateway.ts'
import { drain, routesTo, running } from '../../helpers/listeners.ts'

for (const protocol of protocols) {
  t.test(`a page load logs in and gets the page it asked for, over ${protocol}`, async (t) => {
    const provider = await startProvider(t)
    const forward = { sub: 'x-user', email: 'x-email', 'realm_access.roles': 'x-roles' }
    const { browser, lines, metrics } = await guardedByLogin(t, provider, {
      protocol,
      oidc: { forward },
      config: { consumers: [{ name: 'alice', groups: ['gold'], oidc: 'amy' }] }
    })
    const amy = browser()
    const page = await amy.visit('/app/list?a=1&b=%C3%A9')
    t.equal(page.status, 200)
    const [authorize, ...rest] = page.hops.map((hop) => new URL(hop))
    t.equal(authorize?.origin, provider.issuer)
    t.match(Object.fromEntries(authorize!.searchParams), {
      client_id: client.id,
      response_type: 'code',
      code_challenge_method: 'S256',
      scope: 'openid email roles',
      redirect_uri: `${amy.origin}/oidc/callback`
    })
    t.ok(authorize!.searchParams.get('nonce') && authorize!.searchParams.get('state'))
    t.equal(rest.at(-1)?.href, `${amy.origin}/app/list?a=1&b=%C3%A9`)
    const seen = seenBy(page)
    t.equal(seen.url, '/app/list?a=1&b=%C3%A9')
    t.match(seen.headers, { 'x-user': 'amy', 'x-email': 'amy@example.org', 'x-roles': 'reader,Schl%C3%BCssel' })
    t.notOk(seen.headers.cookie, 'the service gets no cookie of the session')
    t.equal(amy.cookies.size, 1, 'the cookie of the login is deleted')
    for (const [name, { attributes }] of amy.cookies) {
      t.match(name, /^__Host-jw-[0-9a-f]{8}$/)
      t.match(attributes, /^; Path=\/; Max-Age=3600; HttpOnly; SameSite=Lax; Secure$/)
    }
    await eventually(() => lines().some(({ consumer }) => consumer === 'alice'))
    t.match(lines()[0], { status: 302, reason: 'oidc_login', answeredBy: 'gateway', route: 'app' })

    const post = await amy.send('/app/x', {
      method: 'POST',
      body: 'text',
      headers: { cookie: `a=1; ${amy.cookie}; b=2` }
    })
    t.match(seenBy(post), { method: 'POST', body: 'text', headers: { cookie: 'a=1; b=2', 'x-user': 'amy' } })
    const elsewhere = await amy.send('/open')
    t.notOk(seenBy(elsewhere).headers.cookie, 'nor do services of other routes')
    const text = await metrics()
    t.match(text, 'jingwei_edge_oidc_logins_total{route="app",result="completed"} 1')
    t.match(text, 'jingwei_edge_oidc_sessions_total{route="app",result="valid"} 2')
    t.match(text, `jingwei_edge_oidc_provider_up{issuer="${provider.issuer}"} 1`)
  })
}

t.test('a user of one provider is never the consumer of another one', async (t) => {
  const [staff, public_] = [await startProvider(t), await startProvider(t)]
  const edge = { acl: { allow: ['admins'] }, authentication: { forward: { id: 'x-id', groups: 'x-groups' } } }
  const session = { secrets: [newSecret()] }
  const other = { callbackPath: '/pub/callback', loginPath: '/pub/login', logout: { path: '/pub/logout' }, session }
  const oidc = { issuer: public_.issuer, clientId: client.id, clientSecret: client.secret, ...other }
  const { authentication } = edge
  const { browser } = await guardedByLogin(t, staff, {
    edge,
    routes: [
      { name: 'admins', match: { path: '/pub' }, service: 'any', edge: { oidc, ...edge } },
      { name: 'all', match: { path: '/pub/all' }, service: 'any', edge: { oidc, authentication } }
    ],
    config: {
      consumers: [
        { name: 'boss', groups: ['admins'], oidc: { sub: 'amy', issuer: staff.issuer } },
        { name: 'helper', groups: ['helpers'], oidc: { sub: 'bob', issuer: public_.issuer } }
      ]
    }
  })
  public_.allow(`${browser().origin}/pub/callback`)
  t.match(seenBy(await browser().visit('/app')).headers, { 'x-id': 'boss', 'x-groups': 'admins' })
  const amy = browser()
  t.equal((await amy.visit('/pub')).status, 403)
  t.match(seenBy(await amy.visit('/pub/all')).headers, { 'x-id': `${public_.issuer}|amy`, 'x-groups': undefined })
  public_.state.user = 'bob'
  t.match(seenBy(await browser().visit('/pub/all')).headers, { 'x-id': 'helper', 'x-groups': 'helpers' })
  for (const user of [`${staff.issuer}|amy`, '|amy', 'boss']) {
    public_.state.user = user
    t.equal((await browser().visit('/pub')).status, 403, user)
  }
})

t.test('with one provider, a subject is not that of another issuer either', async (t) => {
  const provider = await startProvider(t)
  const { browser } = await guardedByLogin(t, provider, {
    edge: { authentication: { forward: { id: 'x-id' } } },
    config: {
      consumers: [
        { name: 'boss', oidc: { sub: 'amy', issuer: 'https://other.example' } },
        { name: 'carl', oidc: { sub: 'carl', issuer: provider.issuer } },
        { name: 'dora', oidc: 'auth0|dora' }
      ]
    }
  })
  for (const [user, id] of [
    ['amy', 'amy'],
    ['https://other.example|amy', 'https://other.example|amy'],
    ['boss', `${provider.issuer}|boss`],
    ['carl', 'carl'],
    ['auth0|dora', 'dora']
  ] as const) {
    provider.state.user = user
    t.equal(seenBy(await browser().visit('/app')).headers['x-id'], id, user)
  }
})

t.test('only page loads are redirected', async (t) => {
  const { browser, lines } = await guardedByLogin(t, await startProvider(t))
  const fetching = { 'sec-fetch-mode': 'cors', 'sec-fetch-dest': 'empty', accept: 'text/html' }
  const upgrade = {
    connection: 'upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'AAAAAAAAAAAAAAAAAAAAAA=='
  }
  const cases: [string, string, Record<string, string>, number][] = [
    ['a page load', 'GET', pageLoad, 302],
    ['an old browser', 'GET', { accept: 'text/html' }, 302],
    ['a page load of a service worker', 'GET', { ...pageLoad, 'sec-fetch-dest': 'empty' }, 302],
    ['fetch', 'GET', fetching, 401],
    ['an image', 'GET', { 'sec-fetch-mode': 'no-cors', 'sec-fetch-dest': 'image' }, 401],
    ['a frame', 'GET', { ...pageLoad, 'sec-fetch-dest': 'iframe' }, 401],
    ['a prefetch', 'GET', { ...pageLoad, 'sec-purpose': 'prefetch' }, 401],
    ['XMLHttpRequest', 'GET', { accept: 'text/html', 'x-requested-with': 'XMLHttpRequest' }, 401],
    ['curl', 'GET', { accept: '*/*' }, 401],
    ['a form', 'POST', pageLoad, 401],
    ['HEAD', 'HEAD', pageLoad, 401],
    ['a WebSocket', 'GET', { accept: 'text/html', ...upgrade }, 401]
  ]
  for (const [what, method, headers, status] of cases) {
    const user = browser()
    const received = await user.send('/app', { method, headers })
    t.equal(received.status, status, what)
    if (status === 302) continue
    t.equal(received.headers['www-authenticate'], 'Cookie realm="jingwei", login="/oidc/login"', what)
    t.equal(user.cookies.size, 0, what)
    if (method !== 'HEAD') t.match(JSON.parse(received.body.toString()), { code: 'JW_LOGIN_REQUIRED' })
  }
  await eventually(() => lines().length >= cases.length)
  t.match(lines()[3], { error: 'JW_LOGIN_REQUIRED', reason: 'oidc_missing' })
})

t.test('the login path returns to paths of the same host only', async (t) => {
  const { browser } = await guardedByLogin(t, await startProvider(t))
  const targets = [
    ['/app/a?b=c', '/app/a?b=c'], ['https://evil.example/', '/'], ['//evil.example', '/'], ['/\\evil.example', '/'], ['\\/evil', '/'],
    ['/%09/evil.example', '/%09/evil.example'], ['/\t/evil.example', '/'], [`/${'x'.repeat(3000)}`, '/'], ['', '/'], ['javascript:alert(1)', '/']
  ] as const // biome-ignore format: a table
  for (const [target, expected] of targets) {
    const user = browser()
    const { hops } = await user.visit(`/oidc/login?return_to=${encodeURIComponent(target)}`)
    t.equal(hops.at(-1), `${user.origin}${expected}`, target)
  }
})

t.test('a login belongs to the browser that began it, and is used once', async (t) => {
  const provider = await startProvider(t)
  const { browser, lines } = await guardedByLogin(t, provider)
  const amy = browser()
  const { callback } = await untilCallback(amy)
  const eve = browser()
  const stolen = await eve.send(callback, { headers: pageLoad })
  t.match(
    stolen,
    { status: 400 },
    "another browser cannot complete the login: an attacker's account is not given to a victim"
  )
  t.match(JSON.parse(stolen.body.toString()), { code: 'JW_LOGIN_INVALID' })
  t.equal(eve.cookies.size, 0)
  await untilCallback(eve)
  t.equal((await eve.send(callback, { headers: pageLoad })).status, 400, 'not even with a login of its own')
  const other = callback.replace(/state=[^&]+/, 'state=forged')
  t.equal((await amy.send(other, { headers: pageLoad })).status, 400, 'another state')
  t.equal((await amy.send(`${callback}&state=other`, { headers: pageLoad })).status, 400, 'two states')
  t.notOk(provider.seen.includes('POST /token'), 'none of these reaches the provider')

  const { cookie } = amy
  t.match(await amy.send(callback, { headers: pageLoad }), { status: 302, headers: { 'cache-control': 'no-store' } })
  const replay = browser()
  const repeated = await replay.send(callback, { headers: { ...pageLoad, cookie } })
  t.match(repeated, { status: 400 }, 'the code cannot be used again')
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_code'))
  t.equal(replay.cookies.size, 0)
})

t.test('responses of the provider that do not fit the login are refused', async (t) => {
  const provider = await startProvider(t)
  const { browser, lines } = await guardedByLogin(t, provider)
  const cases: [string, (callback: string) => string, number, string, string?][] = [
    [
      'another issuer (RFC 9207)',
      (url) => url.replace(/iss=[^&]+/, 'iss=https%3A%2F%2Fevil.example'),
      403,
      'oidc_response'
    ],
    ['no issuer', (url) => url.replace(/&iss=[^&]+/, ''), 403, 'oidc_response'],
    ['another code', (url) => url.replace(/code=[^&]+/, 'code=guess'), 400, 'oidc_code'],
    ['no code', (url) => url.replace(/code=[^&]+/, ''), 403, 'oidc_response'],
    ['two codes', (url) => `${url}&code=x`, 403, 'oidc_response'],
    ['an error', (url) => url.replace(/code=[^&]+/, 'error=access_denied'), 403, 'oidc_denied'],
    ['an error and a code', (url) => `${url}&error=access_denied`, 403, 'oidc_denied'],
    ['an outage', (url) => url.replace(/code=[^&]+/, 'error=temporarily_unavailable'), 503, 'oidc_unreachable']
  ]
  for (const [what, change, status, reason] of cases) {
    const user = browser()
    const { callback } = await untilCallback(user)
    const before = lines().length
    const received = await user.send(change(callback), { headers: pageLoad })
    t.equal(received.status, status, what)
    await eventually(() => lines().length > before)
    t.equal(lines().at(-1)?.reason, reason, what)
    t.notOk(
      [...user.cookies.keys()].some((name) => !name.includes('-login-')),
      `${what}: no session`
    )
  }
  provider.state.user = null
  t.equal((await browser().visit('/app')).status, 403, 'a user who is refused by the provider')
  const text = JSON.stringify(await Promise.resolve(lines()))
  t.notMatch(text, /code=|state=/, 'the log has no query')
})

t.test('ID tokens are verified', async (t) => {
  const provider = await startProvider(t)
  const { browser, lines, log } = await guardedByLogin(t, provider)
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const sign = (header: object, claims: object, key = privateKey) => {
    const text = [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
    return `${text}.${createSign('sha256').update(text).sign(key, 'base64url')}`
  }
  const now = Math.floor(Date.now() / 1000)
  const good = { iss: provider.issuer, sub: 'eve', aud: client.id, iat: now, exp: now + 60 }
  const none = (nonce: string) =>
    `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify({ ...good, nonce })).toString('base64url')}.`
  const header = { alg: 'RS256', kid: 'one' }
  const cases: [string, (nonce: string) => string | undefined][] = [
    ['signed by another key', (nonce) => sign(header, { ...good, nonce })],
    ['without signature', none],
    ['of another issuer', (nonce) => sign(header, { ...good, nonce, iss: 'https://evil.example' })],
    ['for another client', (nonce) => sign(header, { ...good, nonce, aud: 'other' })],
    ['expired', (nonce) => sign(header, { ...good, nonce, exp: now - 120 })],
    ['of another login', () => sign(header, { ...good, nonce: 'other' })],
    ['missing', () => undefined],
    ['no token', () => 'a.b']
  ]
  for (const [what, idToken] of cases) {
    const user = browser()
    const { callback, nonce } = await untilCallback(user)
    provider.state.intercept = (request, response) => {
      if (request.url !== '/token') return false
      const tokens = { access_token: 'a', token_type: 'Bearer', expires_in: 60, id_token: idToken(nonce) }
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(tokens))
      return true
    }
    const received = await user.send(callback, { headers: pageLoad })
    provider.state.intercept = null
    t.ok([403, 503].includes(received.status), `${what}: ${received.status}`)
    t.equal(user.cookies.size, 0, what)
  }
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_response'))
  t.notMatch(JSON.stringify(log), new RegExp(`${client.secret}|access_token|eyJ`), 'the log has no secret and no token')
})

t.test(
  'a provider that is slow, down or wrong gives 503 in bounded time, and logins work again afterwards',
  async (t) => {
    const provider = await startProvider(t)
    const { browser, lines, log } = await guardedByLogin(t, provider, { oidc: { timeout: '2s' } })
    const respond =
      (text: string, status = 200, headers: Record<string, string> = { 'content-type': 'application/json' }) =>
      (_request: IncomingMessage, response: ServerResponse) => {
        response.writeHead(status, headers).end(text)
        return true
      }
    const faults: [string, string, (request: IncomingMessage, response: ServerResponse) => boolean][] = [
      ['silent', 'oidc_timeout', () => true],
      [
        'endless',
        'oidc_malformed',
        (_request, response) => {
          response.writeHead(200, { 'content-type': 'application/json' })
          response.write(Buffer.alloc(1024 * 1024, 32))
          const timer = setInterval(() => response.write(' '), 50)
          response.once('close', () => clearInterval(timer))
          return true
        }
      ],
      [
        'closing',
        'oidc_unreachable',
        (request) => {
          request.socket.destroy()
          return true
        }
      ],
      ['redirecting', 'oidc_malformed', respond('', 302, { location: 'https://evil.example/' })],
      ['status 500', 'oidc_malformed', respond('oh', 500)],
      ['no JSON', 'oidc_malformed', respond('<html>')],
      ['HTML', 'oidc_malformed', respond('{}', 200, { 'content-type': 'text/html' })],
      ['an empty object', 'oidc_malformed', respond('{}')],
      ['an array', 'oidc_malformed', respond('[]')]
    ]
    const endpoints = [undefined, 7, '/auth', 'javascript:alert(1)'].map((endpoint): (typeof faults)[number] => {
      const metadata = { issuer: provider.issuer, token_endpoint: `${provider.issuer}/token` }
      const text = JSON.stringify({
        ...metadata,
        jwks_uri: `${provider.issuer}/jwks`,
        authorization_endpoint: endpoint
      })
      return [`authorization endpoint ${endpoint}`, 'oidc_malformed', respond(text)]
    })
    const login = async (what: string, reason: string, user: Browser, path: string) => {
      const before = lines().length
      const received = await user.send(path, { headers: pageLoad })
      t.match(received, { status: 503, headers: { 'retry-after': '1' } }, what)
      t.match(JSON.parse(received.body.toString()), { code: 'JW_AUTH_UNAVAILABLE' }, what)
      await eventually(() => lines().length > before)
      t.equal(lines().at(-1)?.reason, reason, what)
    }
    provider.state.intercept = respond(
      JSON.stringify({ issuer: 'https://evil.example', authorization_endpoint: 'https://evil.example/a' })
    )
    await login('metadata of another issuer', 'oidc_malformed', browser(), '/app')
    for (const [what, reason, fault] of [...faults.slice(0, 4), ...endpoints]) {
      provider.state.intercept = fault
      await eventually(
        async () =>
          (await browser().send('/app', { headers: pageLoad })).status === 503 && lines().at(-1)?.reason === reason
      )
      t.pass(`metadata: ${what}`)
    }
    provider.state.intercept = null
    const amy = browser()
    await eventually(async () => (await browser().send('/app', { headers: pageLoad })).status === 302)
    t.equal((await amy.visit('/app')).status, 200, 'after the outage')
    for (const [what, reason, fault] of faults) {
      const user = browser()
      const { callback } = await untilCallback(user)
      provider.state.intercept = (request, response) => request.url === '/token' && fault(request, response)
      const isWrong = /HTML|object|array/.test(what)
      if (!isWrong) await login(`tokens: ${what}`, reason, user, callback)
      else t.equal((await user.send(callback, { headers: pageLoad })).status, 403, `tokens: ${what}`)
      provider.state.intercept = null
      if (isWrong) continue
      t.equal(
        (await user.send(callback, { headers: pageLoad })).status,
        302,
        `a reload completes the login after: ${what}`
      )
    }
    provider.state.intercept = () => true
    t.equal((await amy.send('/app')).status, 200, 'sessions are valid without the provider')
    t.ok(log.some(({ msg }) => String(msg).startsWith('the OpenID provider failed')))
    t.ok(log.some(({ msg }) => msg === 'the OpenID provider responds again'))
  }
)

t.test('a header section full of cookies costs no quadratic time and no long response', async (t) => {
  const provider = await startProvider(t)
  const { browser } = await guardedByLogin(t, provider)
  const amy = browser()
  await amy.visit('/app')
  const [[name] = ['']] = [...amy.cookies]
  const many = (what: string) => Array.from({ length: 300 }, (_, i) => `${name}${what}${i + 1}=x`).join('; ')
  for (const what of ['-login-', '.']) {
    const cookie = `a=1; ${many(what)}`
    const page = await browser().send('/app', { headers: { ...pageLoad, cookie } })
    t.equal(page.status, 302, what)
    t.ok([page.headers['set-cookie'] ?? []].flat().length <= 41, what)
    t.equal(seenBy(await browser().send('/open', { headers: { cookie } })).headers.cookie, 'a=1')
  }
  const through = await amy.send('/app', { headers: { cookie: `${amy.cookie}; ${many('-login-')}; b=2` } })
  t.equal(seenBy(through).headers.cookie, 'b=2')
})

t.test('a path that begins like a host is no redirect to that host', async (t) => {
  const everywhere = { match: { path: '/' } }
  const provider = await startProvider(t)
  const { browser, options } = await guardedByLogin(t, provider)
  const { browser: atRoot } = await guardedByLogin(t, provider, {
    routes: [{ name: 'root', ...everywhere, service: 'any', edge: { oidc: options } }]
  })
  t.equal((await browser().send('/else', { headers: pageLoad })).status, 404)
  for (const path of ['//evil.example/app', '/\\evil.example', '///evil.example']) {
    const user = atRoot()
    const { status, headers } = await user.send(path, { headers: pageLoad })
    t.ok(status === 400 || String(headers.location).startsWith(provider.issuer), `${path}: ${status}`)
    if (status === 302) t.equal((await user.visit(path)).hops.at(-1), `${user.origin}/`, path)
  }
})

t.test('calls to the provider are bounded, also for each client', async (t) => {
  const provider = await startProvider(t)
  const { browser, lines } = await guardedByLogin(t, provider, { oidc: { maxConcurrent: 2, timeout: '20s' } })
  const users = [browser(), browser(), browser()]
  const callbacks: string[] = []
  for (const user of users) callbacks.push((await untilCallback(user)).callback)
  const held: (() => void)[] = []
  provider.state.intercept = (request, response) => {
    if (request.url !== '/token') return false
    held.push(() => response.writeHead(400, { 'content-type': 'application/json' }).end('{"error":"invalid_grant"}'))
    return true
  }
  const waiting = users.slice(0, 2).map((user, index) => user.send(callbacks[index]!, { headers: pageLoad }))
  await eventually(() => held.length === 2)
  const third = await users[2]!.send(callbacks[2]!, { headers: pageLoad })
  t.match(third, { status: 503, headers: { 'retry-after': '1' } })
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_overloaded'))
  for (const release of held) release()
  for (const each of waiting) t.equal((await each).status, 400)
  provider.state.intercept = null
  t.equal((await users[2]!.send(callbacks[2]!, { headers: pageLoad })).status, 302, 'a reload completes the login')
})

t.test('a provider whose certificate is of an authority of its own', async (t) => {
  const files = authority(folderFor(t), 'one')
  const other = authority(folderFor(t), 'other')
  const provider = await startProvider(t, files.issue('provider', { san: 'IP:127.0.0.1' }))
  for (const oidc of [{}, { tls: { ca: other.file } }]) {
    const { browser, lines, log } = await guardedByLogin(t, provider, { oidc })
    t.match(await browser().send('/app', { headers: pageLoad }), { status: 503 })
    await eventually(() => lines().some(({ reason }) => reason === 'oidc_unreachable'))
    t.match(log.find(({ msg }) => String(msg).startsWith('the OpenID provider failed'))?.msg, /certificate/)
  }
  const { browser } = await guardedByLogin(t, provider, { oidc: { tls: { ca: files.file } } })
  const begun = await browser().send('/app', { headers: pageLoad })
  t.equal(begun.status, 302)
  t.equal(new URL(String(begun.headers.location)).origin, provider.issuer)
})

t.test('a reload reads changed authorities of the provider', async (t) => {
  const folder = folderFor(t)
  const [right, wrong] = [authority(folder, 'right'), authority(folder, 'wrong')]
  const provider = await startProvider(t, right.issue('provider', { san: 'IP:127.0.0.1' }))
  const ca = join(folder, 'ca.pem')
  copyFileSync(wrong.file, ca)
  const session = { secrets: [newSecret()] }
  const sections = {
    listen: { port: 0, drain },
    edge: { oidc: { issuer: provider.issuer, clientId: client.id, session, tls: { ca: 'ca.pem' } } },
    ...routesTo('http://127.0.0.1:1')
  }
  const { runtime, reload } = await running(t, folder, sections)
  const { port } = runtime.listeners[0]!.address as AddressInfo
  const status = async () => (await new Browser(t, 'HTTP/1.1', port).send('/', { headers: pageLoad })).status
  t.equal(await status(), 503)
  copyFileSync(right.file, ca)
  t.match(await reload(sections), { applied: true, faults: [] })
  t.equal(await status(), 302)
})

t.test('after the provider has changed its key, logins work at once', async (t) => {
  const provider = await startProvider(t)
  const { browser } = await guardedByLogin(t, provider)
  let kid = ''
  let pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
  let nonce = ''
  const json = (response: ServerResponse, value: object) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(value))
    return true
  }
  provider.state.intercept = ({ url }, response) => {
    if (url === '/jwks')
      return json(response, { keys: [{ ...pair.publicKey.export({ format: 'jwk' }), kid, use: 'sig' }] })
    if (url !== '/token') return false
    const now = Math.floor(Date.now() / 1000)
    const claims = { iss: provider.issuer, sub: 'amy', aud: client.id, iat: now, exp: now + 60, nonce }
    const text = [{ alg: 'RS256', kid }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    const signature = createSign('sha256').update(text).sign(pair.privateKey, 'base64url')
    return json(response, { access_token: 'a', token_type: 'Bearer', expires_in: 60, id_token: `${text}.${signature}` })
  }
  const fetches = () => provider.seen.filter((each) => each === 'GET /jwks').length
  for (const [index, next] of ['k1', 'k2', 'k3'].entries()) {
    kid = next
    pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
    for (let i = 0; i < 3; i++) {
      const user = browser()
      const begun = await untilCallback(user)
      nonce = begun.nonce
      t.equal((await user.send(begun.callback, { headers: pageLoad })).status, 302, `${next}, login ${i}`)
      t.equal(fetches(), index + 1, 'one fetch for each key')
    }
  }
})

t.test('a reload with other settings of the session revives none that was logged out', async (t) => {
  const folder = folderFor(t)
  const provider = await startProvider(t)
  const service = await startEcho()
  t.teardown(service.close)
  const secrets = [newSecret()]
  const sections = (idleTimeout: string) => ({
    listen: { port: 0, drain },
    edge: {
      oidc: {
        issuer: provider.issuer,
        clientId: client.id,
        clientSecret: client.secret,
        session: { secrets, idleTimeout }
      }
    },
    ...routesTo(service.url)
  })
  const { runtime, reload } = await running(t, folder, sections('1h'))
  const { port } = runtime.listeners[0]!.address as AddressInfo
  const amy = new Browser(t, 'HTTP/1.1', port)
  provider.allow(`${amy.origin}/oidc/callback`)
  t.equal((await amy.visit('/')).status, 200)
  const { cookie } = amy
  await amy.send('/oidc/logout')
  const status = async () => (await new Browser(t, 'HTTP/1.1', port).send('/', { headers: { cookie } })).status
  t.equal(await status(), 401)
  t.match(await reload(sections('2h')), { applied: true, faults: [] })
  t.equal(await status(), 401)
})

t.test('a refused client is logged as one, since waiting does not help', async (t) => {
  const provider = await startProvider(t)
  const { browser, log } = await guardedByLogin(t, provider, { oidc: { clientSecret: 'wrong' } })
  const user = browser()
  const { callback } = await untilCallback(user)
  t.equal((await user.send(callback, { headers: pageLoad })).status, 503)
  const line = log.find(({ reason, err }) => reason === 'oidc_client' && err !== undefined)
  t.match(line, {
    clientId: client.id,
    issuer: provider.issuer,
    msg: /^the OpenID provider refuses client \S+: .*; logins get 503; check clientId, clientSecret and clientAuth$/
  })
  t.notOk(JSON.stringify(log).includes('"wrong"'))
})

t.test('a provider that repeats what it was sent brings no secret into the log', async (t) => {
  for (const more of [{}, { clientAuth: 'post' }]) {
    const provider = await startProvider(t)
    const { browser, log } = await guardedByLogin(t, provider, { oidc: more })
    let sent: string[] = []
    provider.state.intercept = (request, response) => {
      if (request.url !== '/token') return false
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        const form = new URLSearchParams(Buffer.concat(chunks).toString())
        const [, login = ''] = request.headers.authorization?.split(' ') ?? []
        sent = [client.secret, login, form.get('code')!, form.get('code_verifier')!].filter((text) => text !== '')
        const body = { error: 'invalid_client', error_description: `unknown ${sent.join(' ')}` }
        response.writeHead(400, { 'content-type': 'application/json' }).end(JSON.stringify(body))
      })
      return true
    }
    const amy = browser()
    const { callback } = await untilCallback(amy)
    await amy.send(callback, { headers: pageLoad })
    await eventually(() => JSON.stringify(log).includes('unknown ***'))
    const text = JSON.stringify(log)
    t.ok(sent.length >= 3)
    for (const secret of sent) t.notOk(text.includes(secret), `${secret} in ${text}`)
  }
})

t.test('a provider that takes the secret in another way is logged with advice', async (t) => {
  const provider = await startProvider(t)
  provider.state.intercept = ({ url }, response) => {
    if (url !== '/.well-known/openid-configuration') return false
    const at = (path: string) => `${provider.issuer}/${path}`
    const metadata = {
      issuer: provider.issuer,
      authorization_endpoint: at('auth'),
      token_endpoint: at('token'),
      jwks_uri: at('jwks'),
      token_endpoint_auth_methods_supported: ['private_key_jwt', 'client_secret_basic']
    }
    response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(metadata))
    return true
  }
  const { browser, log } = await guardedByLogin(t, provider, { oidc: { clientAuth: 'post', clientSecret: 'wrong' } })
  const user = browser()
  const { callback } = await untilCallback(user)
  t.equal((await user.send(callback, { headers: pageLoad })).status, 503)
  const line = log.find(({ reason, err }) => reason === 'oidc_client' && err !== undefined)
  t.match(line, { msg: /logins get 503; it takes the secret by client_secret_basic: set clientAuth: basic$/ })
})
