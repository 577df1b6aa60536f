// slow: starts Chromium and OpenID providers
// A user logs in by a real browser, over HTTPS and HTTP/2. Gateway and provider are different sites, so that SameSite matters.
import type { IncomingMessage } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import { authority, folderFor } from '../helpers/certificates.ts'
import type { Profile, StoredCookie, Tab } from '../helpers/chromium.ts'
import { startChromium } from '../helpers/chromium.ts'
import type { Protocol } from '../helpers/edge/asking-client.ts'
import { guardedByLogin, startProvider } from '../helpers/edge/openid-provider.ts'
import { echo, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'

t.setTimeout(300_000)

const chromium = await startChromium(t, ['app.example'])
const files = authority(folderFor(t), 'login')
const pair = files.issue('provider', { san: 'IP:127.0.0.1' })

/** A request of a page, as it arrives at the service. */
type Arrived = Pick<IncomingMessage, 'url' | 'headers'>

/** A gateway that guards an application by a login at a provider, and the profile of a browser. */
async function guarded(t: Test, protocol: Protocol = 'HTTP/2', { clock = { ahead: 0 }, host = 'app.example' } = {}) {
  const provider = await startProvider(t, pair)
  provider.state.asks = true
  const service = await startWebSocketService({
    onPeer: echo,
    onRequest(request, response) {
      const { url = '', headers } = request
      if (url.startsWith('/app/broken')) return void request.socket.destroy()
      if (url.startsWith('/app/api')) {
        response.setHeader('content-type', 'application/json')
        response.end(JSON.stringify({ url, headers }))
        return
      }
      if (url === '/app/worker.js') {
        response.writeHead(200, { 'content-type': 'text/javascript', 'service-worker-allowed': '/' })
        response.end("addEventListener('fetch', (event) => event.respondWith(fetch(event.request)))")
        return
      }
      response.setHeader('content-type', 'text/html')
      if (url.startsWith('/app')) response.setHeader('set-cookie', 'theme=dark; Secure; Path=/')
      response.end(`<!doctype html><h1>${url.split('?')[0]} for ${headers['x-user'] ?? 'anyone'}</h1>
        <a id="logout" href="/oidc/logout">Log out</a><form method="post" action="/oidc/logout"><button>Log out</button></form>`)
    }
  })
  t.teardown(service.close)
  const gateway = await guardedByLogin(t, provider, {
    protocol,
    service: service.url,
    clock,
    oidc: { tls: { ca: files.file }, forward: { sub: 'x-user' }, logout: { redirect: '/bye' } },
    routes: [{ name: 'bye', match: { path: '/bye' }, service: 'any' }]
  })
  const origin = `${protocol === 'HTTP/1.1' ? 'http' : 'https'}://${host}:${gateway.port}`
  provider.allow(`${origin}/oidc/callback`, `${origin}/bye`)
  return { provider, service, gateway, origin, profile: await chromium.profile() }
}

/** Logs in by the form of the provider. */
async function logIn(tab: Tab, url: string, shown: string): Promise<string> {
  await tab.open(url)
  await tab.shows('Log in as')
  await tab.click('button')
  return tab.shows(shown)
}

/** Fetches as a script of the page does. */
const fetchIn = (tab: Tab, path: string, init: object = {}) =>
  tab.run<{ status: number; redirected: boolean; body: string }>(
    `fetch(${JSON.stringify(path)}, ${JSON.stringify(init)}).then(async (response) =>
      ({ status: response.status, redirected: response.redirected, body: await response.text() }))`
  )

/** Opens a WebSocket from the page; returns the echo of a message, or `refused`. */
const echoIn = (tab: Tab, path: string) =>
  tab.run<string>(`new Promise((resolve) => {
    const socket = new WebSocket(${JSON.stringify(path)})
    socket.onopen = () => socket.send('over the wire')
    socket.onmessage = ({ data }) => { resolve(data); socket.close() }
    socket.onerror = () => resolve('refused')
  })`)

/** Returns the cookies of the gateway. */
const ownCookies = async (profile: Profile): Promise<StoredCookie[]> =>
  (await profile.cookies()).filter(({ name }) => name.startsWith('__Host-'))

t.test('a login returns to the page, whose requests have the session until the logout', async (t) => {
  const clock = { ahead: 0 }
  const { provider, service, origin, profile } = await guarded(t, 'HTTP/2', { clock })
  const tab = await profile.tab()
  const asked = `${origin}/app/orders?page=2&q=a%20%C3%BC&to=https://x.example/`

  await tab.open(asked)
  t.match(await tab.shows('Log in as amy'), `${provider.issuer}/interaction/`)
  const begun = await ownCookies(profile)
  t.match(
    begun.map(({ name }) => name),
    [/-login-/]
  )
  await tab.click('button')
  t.equal(await tab.shows('/app/orders for amy'), asked, 'path and query')
  t.equal(await tab.run('performance.getEntriesByType("navigation")[0].nextHopProtocol'), 'h2')

  const cookies = await ownCookies(profile)
  t.equal(cookies.length, 1, 'the cookie of the login is deleted')
  const { expires, ...attributes } = cookies[0]!
  t.match(attributes, { domain: 'app.example', path: '/', httpOnly: true, secure: true, sameSite: 'Lax' })
  t.ok(Math.abs(expires - Date.now() / 1000 - 3600) < 120, 'the cookie ends with idleTimeout')
  t.equal(await tab.run('document.cookie'), 'theme=dark', 'scripts see the cookies of the service only')

  const fetched = await fetchIn(tab, '/app/api?x=1')
  t.equal(fetched.status, 200)
  const arrived = JSON.parse(fetched.body) as Arrived
  t.equal(arrived.url, '/app/api?x=1')
  t.match(arrived.headers, { 'x-user': 'amy', cookie: 'theme=dark' }, 'the service does not see the session')
  const anonymous = await fetchIn(tab, '/app/api', { credentials: 'omit' })
  t.match(anonymous, { status: 401, redirected: false })
  t.match(JSON.parse(anonymous.body), { code: 'JW_LOGIN_REQUIRED' })
  t.equal(await echoIn(tab, '/app/ws'), 'over the wire')
  t.match(service.requests[0]?.headers, { 'x-user': 'amy', cookie: 'theme=dark' })

  const tokens = () => provider.seen.filter((each) => each === 'POST /token').length
  t.equal(tokens(), 1)
  clock.ahead += 3590_000
  const all = '["/app/api?a", "/app/api?b", "/app/api?c"].map(async (path) => (await fetch(path)).status)'
  t.strictSame(await tab.run(`Promise.all(${all})`), [200, 200, 200])
  t.equal(tokens(), 2, 'one refresh')
  const [renewed] = await ownCookies(profile)
  t.not(renewed?.value, cookies[0]?.value)
  t.equal((await fetchIn(tab, '/app/api')).status, 200)
  t.equal(tokens(), 2)

  await tab.click('#logout')
  t.match(await tab.shows('Leave the provider'), `${provider.issuer}/session/end`)
  t.strictSame(await ownCookies(profile), [])
  await tab.click('button')
  t.equal(await tab.shows('/bye for anyone'), `${origin}/bye`)
  t.equal((await fetchIn(tab, '/app/api')).status, 401)
  t.equal(await echoIn(tab, '/app/ws'), 'refused')
  t.equal(
    await logIn(tab, `${origin}/app/again`, '/app/again for amy'),
    `${origin}/app/again`,
    'the user is asked again'
  )
})

t.test('other sites may link to a page, but neither end the session nor use it', async (t) => {
  const { provider, gateway, origin, profile } = await guarded(t)
  const tab = await profile.tab()
  await logIn(tab, `${origin}/app`, '/app for amy')
  const other = await profile.tab()
  await other.open(`${provider.issuer}/.well-known/openid-configuration`)
  const hostile = { mode: 'no-cors', credentials: 'include' }
  for (const path of ['/oidc/logout', '/app/api']) await fetchIn(other, `${origin}${path}`, hostile)
  await eventually(() => gateway.lines().filter(({ status }) => status === 401 || status === 403).length === 2)
  await other.run(`location.href = ${JSON.stringify(`${origin}/oidc/logout`)}`)
  await other.shows('JW_LOGOUT_REFUSED')
  t.equal((await fetchIn(tab, '/app/api')).status, 200, 'the session goes on')
  await other.open(`${provider.issuer}/.well-known/openid-configuration`)
  await other.run(`location.href = ${JSON.stringify(`${origin}/app/linked`)}`)
  t.equal(await other.shows('/app/linked for amy'), `${origin}/app/linked`, 'a link has the session')
})

t.test('two tabs log in at the same time, with sessions of several cookies', async (t) => {
  const { provider, origin, profile } = await guarded(t)
  provider.state.padding = 1500
  const [first, second] = [await profile.tab(), await profile.tab()]
  const pages = [`${origin}/app/first?a=1`, `${origin}/app/second?b=2`] as const
  await first.open(pages[0])
  await second.open(pages[1])
  for (const tab of [first, second]) await tab.shows('Log in as amy')
  await second.click('button')
  t.equal(await second.shows('/app/second for amy'), pages[1])
  await first.click('button')
  t.equal(await first.shows('/app/first for amy'), pages[0])
  t.strictSame((await ownCookies(profile)).map(({ name }) => name.replace(/^[^.]*/, '')).toSorted(), ['', '.1'])
  for (const tab of [first, second]) t.equal((await fetchIn(tab, '/app/api')).status, 200)
  t.equal(await echoIn(first, '/app/ws'), 'over the wire')
  provider.state.padding = 0
  await first.open(`${origin}/oidc/login?return_to=/app/smaller`)
  await first.shows('/app/smaller for amy')
  t.equal((await ownCookies(profile)).length, 1, 'a smaller session deletes the second cookie')
  t.equal((await fetchIn(second, '/app/api')).status, 200)
})

t.test('once the session has ended, a page load renews it at the provider unseen', async (t) => {
  const clock = { ahead: 0 }
  const { origin, profile } = await guarded(t, 'HTTP/2', { clock })
  const tab = await profile.tab()
  await logIn(tab, `${origin}/app`, '/app for amy')
  clock.ahead += 3600_000
  t.match(await fetchIn(tab, '/app/api'), { status: 401, redirected: false })
  await tab.open(`${origin}/app/later?x=1`)
  t.equal(await tab.shows('/app/later for amy'), `${origin}/app/later?x=1`)
  t.equal((await fetchIn(tab, '/app/api')).status, 200)
})

t.test('a page of another user, in a profile of its own, has a session of its own', async (t) => {
  const { provider, gateway, origin, profile } = await guarded(t)
  const amy = await profile.tab()
  await logIn(amy, `${origin}/app`, '/app for amy')
  provider.state.user = 'bob'
  const bob = await (await chromium.profile()).tab()
  await bob.open(`${origin}/open`)
  await bob.shows('/open for anyone')
  t.equal(await echoIn(bob, '/app/ws'), 'refused')
  await bob.run(
    `document.body.innerHTML = '<iframe src="/app"></iframe><form method="post" action="/app/form"></form>'`
  )
  await eventually(() => gateway.lines().some(({ path, status }) => path === '/app' && status === 401), 'the frame')
  await bob.run('document.forms[0].submit()')
  t.equal(await bob.shows('JW_LOGIN_REQUIRED'), `${origin}/app/form`, 'a form is not redirected')
  await logIn(bob, `${origin}/oidc/login?return_to=/app/start`, '/app/start for bob')
  t.match((JSON.parse((await fetchIn(amy, '/app/api')).body) as Arrived).headers, { 'x-user': 'amy' })
  t.match((JSON.parse((await fetchIn(bob, '/app/api')).body) as Arrived).headers, { 'x-user': 'bob' })
})

for (const protocol of ['HTTP/2', 'TLS'] as const) {
  t.test(
    `browsers store a session that is refreshed by a WebSocket or a failing request, over ${protocol}`,
    async (t) => {
      const clock = { ahead: 0 }
      const { provider, origin, profile } = await guarded(t, protocol, { clock })
      const tab = await profile.tab()
      await logIn(tab, `${origin}/app`, '/app for amy')
      const tokens = () => provider.seen.filter((each) => each === 'POST /token').length
      const value = async () => (await ownCookies(profile))[0]?.value
      const before = await value()
      clock.ahead += 3580_000
      t.equal(await echoIn(tab, '/app/ws'), 'over the wire')
      t.equal(tokens(), 2)
      const after = await value()
      t.not(after, before, 'by the response of the handshake')
      clock.ahead += 3580_000
      t.match(await fetchIn(tab, '/app/broken'), { status: 502 })
      t.equal(tokens(), 3)
      t.not(await value(), after, 'by the error')
      clock.ahead += 3580_000
      t.equal((await fetchIn(tab, '/app/api')).status, 200)
    }
  )
}

for (const host of ['localhost', '127.0.0.1']) {
  t.test(`a login and logout over plain HTTP at ${host}, for development`, async (t) => {
    const { origin, profile } = await guarded(t, 'HTTP/1.1', { host })
    const tab = await profile.tab()
    t.equal(await logIn(tab, `${origin}/app/dev?a=1`, '/app/dev for amy'), `${origin}/app/dev?a=1`)
    t.equal((await fetchIn(tab, '/app/api')).status, 200)
    await tab.click('form button')
    await tab.shows('Leave the provider')
    await tab.click('button')
    t.equal(await tab.shows('/bye for anyone'), `${origin}/bye`)
    t.equal((await fetchIn(tab, '/app/api')).status, 401)
  })
}

t.test('pages of a service worker log in, too', async (t) => {
  const clock = { ahead: 0 }
  // Service workers need an origin that the browser trusts.
  const { origin, profile } = await guarded(t, 'HTTP/1.1', { clock, host: 'localhost' })
  const tab = await profile.tab()
  await logIn(tab, `${origin}/app/`, '/app/ for amy')
  await tab.run(`navigator.serviceWorker.register('/app/worker.js', { scope: '/' })
    .then(() => navigator.serviceWorker.ready).then(() => null)`)
  await tab.open(`${origin}/app/one`)
  await tab.shows('/app/one for amy')
  t.equal(await tab.run('navigator.serviceWorker.controller?.state'), 'activated')
  clock.ahead += 3600_000
  t.match(await fetchIn(tab, '/app/api'), { status: 401, redirected: false })
  await tab.open(`${origin}/app/two?x=1`)
  t.equal(await tab.shows('/app/two for amy'), `${origin}/app/two?x=1`)
  await tab.click('#logout')
  await tab.shows('Leave the provider')
  await tab.click('button')
  t.equal(await tab.shows('/bye for anyone'), `${origin}/bye`)
  t.equal(await logIn(tab, `${origin}/app/three`, '/app/three for amy'), `${origin}/app/three`)
})
