// slow: starts a gateway for each protocol and place
/** Places of tokens, removal from the request to the service, optional tokens, required scopes and claims, shadow mode. */
import { hash } from 'node:crypto'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, keys, pem, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { raw, startEcho, startGateway } from '../../helpers/gateway.ts'

interface Options {
  readonly protocol?: Protocol
  readonly edge?: object
  readonly more?: object
  readonly service?: string
}

async function gatewayWith(
  t: Test,
  jwt: object,
  { protocol = 'HTTP/1.1', edge = {}, more = {}, service }: Options = {}
) {
  let url = service
  if (url === undefined) {
    const echo = await startEcho()
    t.teardown(echo.close)
    url = echo.url
  }
  const gateway = await startGateway(
    {
      listen: listenFor(t, protocol),
      services: { any: { instances: [url] } },
      edge: { jwt: { secret, ...jwt }, ...edge },
      routes: [
        { name: 'all', match: { path: '/' }, service: 'any' },
        {
          name: 'open',
          match: { path: '/open' },
          service: 'any',
          edge: { jwt: false, keyAuth: false, basicAuth: false, acl: false }
        }
      ],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const send = async (path: string, headers: object = {}) => {
    const before = lines().length
    const response = await ask(path, { headers: headers as Record<string, string> })
    await eventually(() => lines().length > before)
    const { consumer, reason, shadow } = lines().at(-1)!
    const body = JSON.parse(response.body.toString()) as Seen & { code?: string }
    const challenge = response.headers['www-authenticate']
    return { status: response.status, consumer, reason, shadow, challenge, code: body.code, seen: body }
  }
  return { ...gateway, send, lines }
}

const good = token(claims())
const bad = token(claims(), 'another secret that is long enough')
const bearer = (text = good) => ({ authorization: `Bearer ${text}` })

for (const protocol of protocols) {
  t.test(`tokens in a query parameter, a cookie and a header of their own over ${protocol}`, async (t) => {
    const from = { header: 'x-token', query: 'access_token', cookie: 'session' }
    const { send, lines } = await gatewayWith(t, { from }, { protocol })
    const byQuery = await send(`/p?a=%20b&access_token=${good}&c=d`)
    t.match(byQuery, { status: 200, consumer: 'ann' })
    t.equal(byQuery.seen.url, '/p?a=%20b&c=d', 'the other bytes of the target stay')
    const byCookie = await send('/', { cookie: `a=b; session=${good}; c=d` })
    t.match(byCookie, { status: 200, consumer: 'ann' })
    t.equal(byCookie.seen.headers.cookie, 'a=b; c=d')
    for (const value of [good, `Bearer ${good}`, `bearer  ${good}`]) {
      const byHeader = await send('/', { 'x-token': value })
      t.match(byHeader, { status: 200, consumer: 'ann' })
      t.notMatch(byHeader.seen.rawHeaders.join(), /x-token|eyJ/i)
    }
    for (const spelt of ['authorization', 'Authorization']) {
      const beside = await send('/', { 'x-token': good, [spelt]: `bearer ${bad}` })
      t.match(beside, { status: 200, consumer: 'ann' })
      t.notMatch(beside.seen.rawHeaders.join(), /authorization|eyJ/i, 'no token that was not verified')
    }
    const basic = { authorization: 'Basic YTpi' }
    t.match(await send('/', { 'x-token': good, ...basic }), { status: 200, seen: { headers: basic } })
    const cleared = await send('/', { cookie: 'session=', 'x-token': good })
    t.match(cleared, { status: 200, consumer: 'ann' }, 'an empty cookie is no token')
    for (const [path, headers] of [
      [`/?access_token=${good}&access_token=${good}`, {}],
      [`/?access_token=${good}&access%5Ftoken=x`, {}],
      [`/?access_token=${good}`, { cookie: `session=${good}` }],
      ['/', { cookie: `session=${good}; session=${bad}` }],
      ['/', { 'x-token': good, x_token: good }]
    ] as const) {
      t.match(await send(path, headers), { status: 401, reason: 'jwt_repeated', code: 'JW_TOKEN_INVALID' }, path)
    }
    for (const [path, headers] of [
      ['/', bearer()],
      [`/?ACCESS_TOKEN=${good}`, {}],
      ['/?access_token=', {}],
      ['/', { x_token: good }]
    ] as const) {
      t.match(await send(path, headers), { status: 401, reason: 'jwt_missing', code: 'JW_TOKEN_MISSING' })
    }
    t.match(await send(`/?access_token=${bad}`), { status: 401, reason: 'jwt_signature' })
    t.notMatch(JSON.stringify(lines()), /eyJ/, 'no token in the access lines')
  })

  t.test(`Authorization beside other places over ${protocol}`, async (t) => {
    const { send } = await gatewayWith(t, { from: { cookie: 'session', query: 'token' } }, { protocol })
    const byHeader = await send('/', bearer())
    t.match(byHeader, { status: 200, seen: { headers: bearer() } }, 'the service gets a verified token')
    t.match(await send('/', { ...bearer(), cookie: `session=${good}` }), { status: 401, reason: 'jwt_repeated' })
    t.match(await send(`/?token=${good}`, bearer()), { status: 401, reason: 'jwt_repeated' })
    const other = await send('/', { authorization: 'Basic YTpi', cookie: `session=${good}` })
    t.match(other, { status: 200, consumer: 'ann' })
    t.equal(other.seen.headers.authorization, undefined, 'credentials that were not verified do not reach the service')
    t.match(await send('/', { authorization: 'Basic YTpi' }), { status: 401, reason: 'jwt_scheme' })
  })

  t.test(`hideCredentials over ${protocol}`, async (t) => {
    const from = { cookie: 'session' }
    const hiding = await gatewayWith(t, { from, hideCredentials: true }, { protocol })
    const hidden = await hiding.send('/', bearer())
    t.match(hidden, { status: 200, consumer: 'ann' })
    t.notMatch(hidden.seen.rawHeaders.join(), /eyJ/)
    const keeping = await gatewayWith(t, { from, hideCredentials: false }, { protocol })
    t.equal((await keeping.send('/', { cookie: `session=${good}` })).seen.headers.cookie, `session=${good}`)
  })

  t.test(`optional tokens over ${protocol}`, async (t) => {
    const jwt = { optional: true, from: { cookie: 'session' }, forward: { sub: 'x-sub' } }
    const { send } = await gatewayWith(t, jwt, { protocol })
    const without = await send('/', { 'x-sub': 'forged' })
    t.match(without, { status: 200, consumer: undefined })
    t.notOk(without.seen.headers['x-sub'])
    t.match(await send('/', bearer()), { status: 200, consumer: 'ann', seen: { headers: { 'x-sub': 'ann' } } })
    t.match(await send('/', bearer(bad)), { status: 401, reason: 'jwt_signature', challenge: /invalid_token/ })
    t.match(await send('/', { cookie: 'session=x' }), { status: 401, reason: 'jwt_malformed' })
    const other = await send('/', { authorization: 'Basic YTpi' })
    t.equal(other.status, 200)
    t.notOk(other.seen.headers.authorization, 'other credentials do not reach the service')
  })

  t.test(`required scopes and claims over ${protocol}`, async (t) => {
    const jwt = { scopes: ['read', 'write'], claims: { 'realm.tier': ['gold', 'silver'] }, forward: { sub: 'x-sub' } }
    const { send } = await gatewayWith(t, jwt, { protocol })
    const of = (more: object) => send('/', bearer(token(claims({ ...more }))))
    const realm = { tier: 'gold' }
    t.match(await of({ scope: 'write read other', realm }), { status: 200, consumer: 'ann' })
    t.match(await of({ scp: ['read', 'write'], realm: { tier: 'silver' } }), { status: 200 })
    t.match(await of({ scope: 'read', realm }), {
      status: 403,
      code: 'JW_INSUFFICIENT_SCOPE',
      reason: 'jwt_scope',
      challenge:
        'Bearer realm="jingwei", error="insufficient_scope", error_description="The token does not allow this request", scope="read write"'
    })
    t.match(await of({ scope: 'READ write', realm }), { status: 403, reason: 'jwt_scope' })
    t.match(await of({ realm }), { status: 403, reason: 'jwt_scope' })
    const poor = await of({ scope: 'read write', realm: { tier: 'bronze' } })
    t.match(poor, {
      status: 403,
      reason: 'jwt_required_claim',
      challenge: /insufficient_scope", error_description="[^"]*"$/
    })
    const again = bearer(token(claims({ scope: 'read' })))
    for (let i = 0; i < 2; i++) t.match(await send('/', again), { status: 403 }, 'also of a remembered token')
  })
}

t.test('a WebSocket handshake may have its token in the query, which the service does not get', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const from = { query: 'token', cookie: 'session' }
  const { port } = await gatewayWith(t, { from, scopes: ['ws'] }, { service: service.url })
  const scoped = token(claims({ scope: 'ws' }))
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  t.match(await raw(port, handshake(`/ws?token=${good}`)), /^HTTP\/1.1 403 [\s\S]*insufficient_scope/)
  t.match(await raw(port, handshake(`/ws?token=${scoped}`, [`cookie: session=${scoped}`])), /^HTTP\/1.1 401 /)
  for (const [path, header] of [
    [`/ws?a=b&token=${scoped}`, 'a: b'],
    ['/ws', `cookie: session=${scoped}`]
  ] as const) {
    const { peer } = await open(port, path, [header])
    peer.socket.destroy()
  }
  const asked = service.requests.map(({ url, rawHeaders }) => [url, ...rawHeaders].join())
  t.equal(asked.length, 2)
  t.notMatch(asked.join(), /eyJ/)
})

t.test('a route in shadow mode lets requests in, and records refusals', async (t) => {
  const { send, server } = await gatewayWith(t, { mode: 'shadow', scopes: ['read'], from: { query: 'token' } })
  const ofConcern = (error: string, reason: string) => [{ concern: 'jwt', error, reason }]
  const without = await send('/')
  t.match(without, { status: 200, consumer: undefined, shadow: ofConcern('JW_TOKEN_MISSING', 'jwt_missing') })
  t.match(await send('/', bearer(bad)), { status: 200, shadow: ofConcern('JW_TOKEN_INVALID', 'jwt_signature') })
  const poor = await send('/', bearer())
  t.match(poor, { status: 200, consumer: undefined, shadow: ofConcern('JW_INSUFFICIENT_SCOPE', 'jwt_scope') })
  t.equal(poor.challenge, undefined)
  const rich = token(claims({ scope: 'read' }))
  const kept = await send(`/?token=${rich}`)
  t.match(kept, { status: 200, consumer: 'ann', shadow: undefined })
  t.equal(kept.seen.url, `/?token=${rich}`, 'credentials stay in the request')
  t.match(await server.metrics.metrics(), 'jingwei_edge_shadow_refusals_total{concern="jwt",route="all"} 3')
})

t.test('an optional token beside other methods', async (t) => {
  const consumers = [{ name: 'alice', keyAuth: { hash: `sha256:${hash('sha256', 'key-1')}` } }]
  const key = { 'x-api-key': 'key-1' }
  const of = (authentication: object) =>
    gatewayWith(t, { optional: true }, { edge: { keyAuth: {}, authentication }, more: { consumers } })
  const all = await of({ require: 'all' })
  t.match(await all.send('/', key), { status: 200, consumer: 'alice' })
  t.match(await all.send('/', { ...key, ...bearer() }), { status: 200, consumer: 'ann' })
  t.match(await all.send('/', { ...key, ...bearer(bad) }), { status: 401, reason: 'jwt_signature' })
  t.match(await all.send('/', bearer()), { status: 401, reason: 'key_missing' })
  t.match(await all.send('/'), { status: 401, reason: 'key_missing' })
  const any = await of({ require: 'any' })
  t.match(await any.send('/'), { status: 200, consumer: undefined })
  t.match(await any.send('/', key), { status: 200, consumer: 'alice' })
  t.match(await any.send('/', { 'x-api-key': 'no' }), { status: 401, reason: 'key_unknown' })
  t.match(await any.send('/', { 'x-api-key': 'no', ...bearer() }), { status: 200, consumer: 'ann' })
  const named = await of({ require: 'any', anonymous: 'guest' })
  t.match(await named.send('/'), { status: 200, consumer: 'guest' })
})

t.test('with any, credentials that were not verified are removed from every place', async (t) => {
  const consumers = [
    { name: 'alice', keyAuth: { hash: `sha256:${hash('sha256', 'key-1')}` } },
    {
      name: 'bob',
      basicAuth: { username: 'bob', hash: '$2b$04$abcdefghijklmnopqrstuuNoCMKFHCWrLD1UWKaEkbVaCzh4B8p0q' }
    }
  ]
  const edge = { keyAuth: {}, basicAuth: { hideCredentials: false }, authentication: { require: 'any' } }
  const from = { cookie: 'session', query: 'token' }
  const { send } = await gatewayWith(t, { from }, { edge, more: { consumers } })
  const wrong = { authorization: `Basic ${btoa('bob:wrong')}` }
  const byCookie = await send('/', { ...wrong, cookie: `session=${good}` })
  t.match(byCookie, { status: 200, consumer: 'ann' })
  t.notOk(byCookie.seen.headers.authorization, 'of basicAuth, where the token was in a cookie')
  const byKey = await send(`/?token=${bad}&a`, { 'x-api-key': 'key-1', cookie: `session=${bad}` })
  t.match(byKey, { status: 200, consumer: 'alice' })
  t.equal(byKey.seen.url, '/?a')
  t.notOk(byKey.seen.headers.cookie)
})

t.test('a token that does not suffice sets nothing', async (t) => {
  const consumers = [{ name: 'alice', keyAuth: { hash: `sha256:${hash('sha256', 'key-1')}` } }]
  const edge = { keyAuth: {}, authentication: { require: 'any' }, acl: { claims: { sub: 'ann' } } }
  for (const key of [{}, { secret: undefined, publicKey: pem(keys.rsa) }]) {
    const jwt = { ...key, scopes: ['admin'], forward: { sub: 'x-sub' } }
    const { send } = await gatewayWith(t, jwt, { edge, more: { consumers } })
    const text = 'publicKey' in key ? token(claims(), keys.rsa, { alg: 'RS256' }) : good
    t.match(await send('/', { 'x-api-key': 'key-1', ...bearer(text) }), { status: 403, reason: 'acl_no_token' })
  }
})

t.test('the consumer by another claim, one claim in two headers, and all claims in one header', async (t) => {
  const jwt = {
    consumer: 'user.name',
    forward: { sub: ['x-user-id', 'x-user'], 'user.name': 'x-name' },
    forwardClaims: { header: 'x-userinfo' },
    realm: 'my api'
  }
  const consumers = [{ name: 'alice', groups: ['gold'], jwt: { sub: 'al' } }]
  const { send } = await gatewayWith(t, jwt, { more: { consumers } })
  const sent = claims({ user: { name: 'al' }, city: '张' })
  const forged = { 'x-userinfo': 'forged', x_user: 'root', 'x-user': 'root' }
  const { seen, ...passed } = await send('/', { ...bearer(token(sent)), ...forged })
  t.match(passed, { status: 200, consumer: 'alice' })
  t.match(seen.headers, { 'x-user-id': 'ann', 'x-user': 'ann', 'x-name': 'al' })
  t.strictSame(JSON.parse(Buffer.from(String(seen.headers['x-userinfo']), 'base64').toString()), sent)
  t.notMatch(seen.rawHeaders.join(), /forged|root/)
  t.match(await send('/', bearer(token(claims({ user: { name: 7 } })))), { status: 200, consumer: undefined })
  t.equal((await send('/')).challenge, 'Bearer realm="my api"')
  const open = await send('/open', forged)
  t.notMatch(open.seen.rawHeaders.join(), /forged|root/, 'nor on another route to the service')
  const url = await gatewayWith(t, { forwardClaims: { header: 'x-userinfo', encoding: 'base64url' } })
  const text = JSON.stringify(sent)
  const value = (await url.send('/', bearer(token(sent)))).seen.headers['x-userinfo']
  t.equal(value, Buffer.from(text).toString('base64url'))
})

t.test('a claim that a token has twice reaches the service as the gateway reads it', async (t) => {
  const { send } = await gatewayWith(t, { forwardClaims: { header: 'x-userinfo' } })
  const { exp } = claims()
  const twice = token(`{"sub":"root","exp":${exp},"sub":"ann"}`)
  const { seen, consumer } = await send('/', bearer(twice))
  t.equal(consumer, 'ann')
  t.equal(Buffer.from(String(seen.headers['x-userinfo']), 'base64').toString(), JSON.stringify({ sub: 'ann', exp }))
})
