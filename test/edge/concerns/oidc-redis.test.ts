// slow: starts Redis and OpenID providers
import { createSign, generateKeyPairSync } from 'node:crypto'
import t from 'tap'
import { client, guardedByLogin, seenBy, startProvider } from '../../helpers/edge/openid-provider.ts'
import { eventually } from '../../helpers/eventually.ts'
import { startService } from '../../helpers/gateway.ts'
import { ask, startRedis } from '../../helpers/redis.ts'

const fetching = { 'sec-fetch-mode': 'cors' }
const session = { store: 'redis' }

t.test('with Redis the cookie is an id, and a logout ends the session on all nodes', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const provider = await startProvider(t)
  const more = { session, config: { redis: { url: redis.url } } }
  const [one, two] = [await guardedByLogin(t, provider, more), await guardedByLogin(t, provider, more)]
  await eventually(async () => (await one.browser().visit('/oidc/login')).hops.length > 0)
  const amy = one.browser()
  t.equal((await amy.visit('/app')).status, 200)
  const [, { value, attributes }] = [...amy.cookies][0]!
  t.match(value, /^[\w-]{43}$/)
  t.match(attributes, /Max-Age=43[12]\d\d;/)
  const elsewhere = two.browser()
  const { cookie } = amy
  const at = async (path = '/app') => (await elsewhere.send(path, { headers: { ...fetching, cookie } })).status
  t.equal(await at(), 200, 'another node')
  const keys = await ask(redis.port, 'KEYS jingwei:session:*')
  t.notMatch(keys, value, 'Redis does not know the id')
  t.equal(
    (await elsewhere.send('/app', { headers: { cookie: cookie.replace(value, 'x'.repeat(43)) } })).status,
    401,
    'a guess'
  )
  t.equal((await elsewhere.send('/app', { headers: { cookie: cookie.replace(value, '*') } })).status, 401, 'no id')
  const before = amy.cookie
  await amy.visit('/oidc/login?return_to=/app')
  t.not(amy.cookie, before, 'a new login has a new id')
  t.equal(await at(), 401, 'and ends the session before')
  const current = amy.cookie
  t.equal((await elsewhere.send('/oidc/logout', { headers: { cookie: current } })).status, 303)
  t.equal((await amy.send('/app', { headers: fetching })).status, 401, 'ended by a logout on another node')
})

t.test('idleTimeout is the time of the key in Redis', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const more = { session: { ...session, idleTimeout: '600ms' }, config: { redis: { url: redis.url } } }
  const { browser } = await guardedByLogin(t, await startProvider(t), more)
  const amy = browser()
  await eventually(async () => (await amy.visit('/app')).status === 200)
  await eventually(async () => {
    await new Promise((resolve) => setTimeout(resolve, 700))
    return (await amy.send('/app', { headers: fetching })).status === 401
  })
  t.equal(amy.cookies.size, 0)
})

t.test('nodes share one refresh', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const provider = await startProvider(t)
  provider.state.accessTokenTtl = 600
  const clock = { ahead: 0 }
  const more = { session, clock, oidc: { forwardAccessToken: true }, config: { redis: { url: redis.url } } }
  const nodes = [await guardedByLogin(t, provider, more), await guardedByLogin(t, provider, more)]
  const amy = nodes[0]!.browser()
  await eventually(async () => (await amy.visit('/app')).status === 200)
  const users = nodes.map(({ browser }) => browser())
  const calls = () => provider.seen.filter((each) => each === 'POST /token').length
  const before = calls()
  clock.ahead += 590_000
  const send = (_: unknown, index: number) =>
    users[index % 2]!.send('/app', { headers: { ...fetching, cookie: amy.cookie } })
  const all = await Promise.all(Array.from({ length: 10 }, send))
  t.strictSame(new Set(all.map(({ status }) => status)), new Set([200]))
  t.equal(new Set(all.map((each) => seenBy(each).headers.authorization)).size, 1, 'all have the same new token')
  t.equal(calls() - before, 1)
})

t.test('while Redis is unavailable, requests with a session get 503 in bounded time', async (t) => {
  const redis = await startRedis()
  const provider = await startProvider(t)
  const more = { session: { ...session, timeout: '200ms' }, config: { redis: { url: redis.url } } }
  const { browser, lines, log } = await guardedByLogin(t, provider, more)
  const amy = browser()
  await eventually(async () => (await amy.visit('/app')).status === 200)
  const status = async () => (await amy.send('/app', { headers: fetching })).status
  redis.pause()
  const down = await amy.send('/app', { headers: fetching })
  t.match(down, { status: 503, headers: { 'retry-after': '1' } })
  t.match(JSON.parse(down.body.toString()), { code: 'JW_AUTH_UNAVAILABLE' })
  t.equal((await amy.send('/oidc/logout')).status, 503, 'a logout that cannot end the session says so')
  t.equal((await browser().visit('/app')).status, 503, 'no login without a place for the session')
  t.equal(amy.cookies.size, 1, 'the cookie stays')
  t.equal((await browser().send('/open')).status, 200, 'other routes do not need Redis')
  redis.resume()
  await eventually(async () => (await status()) === 200)
  await redis.stop()
  t.equal(await status(), 503)
  const again = await startRedis({ port: redis.port })
  t.teardown(() => again.stop())
  await eventually(async () => (await status()) === 401, 'Redis has lost the session')
  t.equal((await amy.visit('/app')).status, 200)
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_store'))
  t.ok(log.some(({ msg }) => msg === 'Redis responds again: sessions are valid'))
})

t.test('a logout at the provider ends the session here (back-channel logout)', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const provider = await startProvider(t)
  const oidc = { logout: { backchannelPath: '/oidc/ended' } }
  const gateway = await guardedByLogin(t, provider, { session, oidc, config: { redis: { url: redis.url } } })
  const { browser, lines } = gateway
  const report = (body: string) => browser().send('/oidc/ended', { method: 'POST', body })
  for (const body of ['', 'logout_token=', 'logout_token=a.b.c', 'x'.repeat(20_000)]) {
    t.match(JSON.parse((await report(body)).body.toString()), { code: 'JW_LOGOUT_INVALID' }, body.slice(0, 20))
  }
  t.equal((await browser().send('/oidc/ended')).status, 400, 'without a body')
  const sent: string[] = []
  const relay = await startService((request, response) => {
    let body = ''
    request.on('data', (chunk: Buffer) => {
      body += chunk
    })
    request.on('end', () => {
      sent.push(body)
      response.end()
    })
  })
  t.teardown(relay.close)
  provider.reportTo(`${relay.url}/`)
  const [amy, same] = [browser(), browser()]
  await eventually(async () => (await amy.visit('/app')).status === 200)
  await same.visit('/app')
  await amy.foreign(new URL('/session/end', provider.issuer))
  await eventually(() => sent.length > 0)
  const at = async (user: typeof amy) => (await user.send('/app', { headers: fetching })).status
  t.equal(await at(amy), 200, 'the provider has not told the gateway yet')
  const token = new URLSearchParams(sent[0]).get('logout_token')!
  const [header, claims, signature] = token.split('.')
  const forged = { ...JSON.parse(Buffer.from(claims!, 'base64url').toString()), sid: 'other' }
  const changed = `${header}.${Buffer.from(JSON.stringify(forged)).toString('base64url')}.${signature}`
  t.equal((await report(`logout_token=${changed}`)).status, 400, 'a changed token')
  t.match(await report(sent[0]!), { status: 200, headers: { 'cache-control': 'no-store' } })
  t.equal(await at(amy), 401)
  t.equal(await at(same), 200, 'another session of the user at the provider')
  await eventually(() => lines().some(({ reason }) => reason === 'oidc_logout_token'))
})

t.test('a logout token ends sessions once, on all nodes', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const provider = await startProvider(t)
  const more = {
    session,
    oidc: { logout: { backchannelPath: '/oidc/ended' } },
    config: { redis: { url: redis.url } }
  }
  const [one, two] = [await guardedByLogin(t, provider, more), await guardedByLogin(t, provider, more)]
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const { keys } = (await (await fetch(`${provider.issuer}/jwks`)).json()) as { keys: object[] }
  const all = JSON.stringify({ keys: [...keys, { ...publicKey.export({ format: 'jwk' }), kid: 'two', use: 'sig' }] })
  let isDown = true
  provider.state.intercept = ({ url }, response) => {
    if (url !== '/jwks') return false
    response.writeHead(isDown ? 503 : 200, { 'content-type': 'application/json' }).end(all)
    return true
  }
  const tokenFor = (jti: unknown) => {
    const now = Math.floor(Date.now() / 1000)
    const events = { 'http://schemas.openid.net/event/backchannel-logout': {} }
    const claims = { iss: provider.issuer, aud: client.id, iat: now, exp: now + 60, jti, sub: 'amy', events }
    const text = [{ alg: 'RS256', kid: 'two' }, claims]
      .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
      .join('.')
    return `${text}.${createSign('sha256').update(text).sign(privateKey, 'base64url')}`
  }
  const report = async (node: typeof one, token: string) =>
    (await node.browser().send('/oidc/ended', { method: 'POST', body: `logout_token=${token}` })).status
  const token = tokenFor('first')
  t.equal(await report(one, token), 503, 'without the keys of the provider, it may send the token again')
  isDown = false
  const amy = one.browser()
  const at = async () => (await amy.send('/app', { headers: fetching })).status
  await eventually(async () => (await amy.visit('/app')).status === 200)
  await eventually(async () => (await report(one, token)) === 200)
  t.equal(await at(), 401)
  t.equal((await amy.visit('/app')).status, 200)
  t.equal(await report(one, token), 400, 'used before')
  t.equal(await report(two, token), 400, 'also at another node')
  t.equal(await at(), 200, 'the new session goes on')
  t.equal(await report(two, tokenFor(7)), 400)
  t.equal(await report(two, tokenFor('second')), 200)
  t.equal(await at(), 401)
})
