// slow: starts a gateway for each protocol
/** Several issuers on one route, key sets by discovery, tokens without `exp`. */
import type { KeyObject } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { Provider } from 'oidc-provider'
import type { Test } from 'tap'
import t from 'tap'
import { keySetUrl } from '../../../plugins/edge/concerns/jwt/discovery.ts'
import { mint, withTestKey } from '../../../plugins/edge/concerns/jwt/mint.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { jwtOptions } from '../../helpers/edge/jwt-options.ts'
import { claims, keys, pem, seconds, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

type Respond = (request: IncomingMessage, response: ServerResponse) => void

/** An identity provider with metadata and a key set. */
async function provider(t: Test, pair: { publicKey: KeyObject }) {
  const jwk = { ...pair.publicKey.export({ format: 'jwk' }), kid: 'one' }
  const fetched: string[] = []
  const state = { keys: [jwk] as object[], metadata: null as Respond | null }
  const server = await startService((request, response) => {
    fetched.push(request.url!)
    if (request.url === '/keys') return response.end(JSON.stringify({ keys: state.keys }))
    if (state.metadata !== null) return state.metadata(request, response)
    return response.end(JSON.stringify({ issuer: server.url, jwks_uri: `${server.url}/keys` }))
  })
  t.teardown(server.close)
  return { url: server.url, fetched, state }
}

interface Options {
  readonly protocol?: Protocol
  readonly more?: object
  readonly service?: string
}

async function gatewayWith(t: Test, jwt: object, { protocol = 'HTTP/1.1', more = {}, service }: Options = {}) {
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
      edge: { jwt },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      ...more
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const send = async (text: string) => {
    const before = lines().length
    const response = await ask('/', { headers: { authorization: `Bearer ${text}` } })
    await eventually(() => lines().length > before)
    const { consumer, reason } = lines().at(-1)!
    const body = JSON.parse(response.body.toString()) as Seen & { code?: string }
    return { status: response.status, consumer, reason, code: body.code, headers: response.headers, seen: body }
  }
  return { ...gateway, send, metrics: () => gateway.server.metrics.metrics() }
}

const byRsa = (more: object, pair = keys.rsa) => token(claims({ ...more }), pair, { alg: 'RS256', kid: 'one' })

for (const protocol of protocols) {
  t.test(`several issuers on one route over ${protocol}`, async (t) => {
    const idp = await provider(t, keys.rsa)
    const issuers = [
      { issuer: 'https://set', jwks: `${idp.url}/keys`, audience: 'api' },
      { issuer: 'https://secret', secret },
      { issuer: 'https://key', publicKey: pem(keys.p256), algorithms: ['ES256'] }
    ]
    const consumers = [
      { name: 'alice', jwt: { sub: 'ann', issuer: 'https://secret' } },
      { name: 'bob', jwt: { sub: 'ann', issuer: 'https://key' } }
    ]
    const { send } = await gatewayWith(t, { issuers, jwksCooldown: 0 }, { protocol, more: { consumers } })
    const bySecret = (iss: unknown, more = {}) => token(claims({ iss, ...more }))
    const byKey = (iss: unknown) => token(claims({ iss }), keys.p256, { alg: 'ES256' })
    const good = byRsa({ iss: 'https://set', aud: 'api' })
    for (let i = 0; i < 2; i++) {
      t.match(await send(good), { status: 200, consumer: 'https://set|ann' })
      t.match(await send(bySecret('https://secret')), { status: 200, consumer: 'alice' })
      t.match(await send(byKey('https://key')), { status: 200, consumer: 'bob' })
    }
    t.match(await send(byRsa({ iss: 'https://set' })), { status: 401, reason: 'jwt_audience' })
    t.match(await send(byRsa({ iss: 'https://secret', aud: 'api' })), { status: 401, reason: 'jwt_algorithm' })
    t.match(await send(bySecret('https://set', { aud: 'api' })), { status: 401, reason: 'jwt_algorithm' })
    t.match(await send(byKey('https://secret')), { status: 401, reason: 'jwt_algorithm' })
    const forged = token(claims({ iss: 'https://secret' }), 'another secret that is long enough')
    t.match(await send(forged), { status: 401, reason: 'jwt_signature' })
    t.match(await send(token(claims({ iss: 'https://key' }), pem(keys.p256))), { status: 401, reason: 'jwt_algorithm' })
    for (const iss of [undefined, '', 'https://other', 'https://secret/', 7, null, ['https://secret'], { a: 1 }]) {
      t.match(await send(bySecret(iss)), { status: 401, reason: 'jwt_issuer' }, JSON.stringify(iss))
    }
    const twice = token(`{"iss":"https://key","exp":${seconds() + 60},"sub":"ann","iss":"https://secret"}`)
    t.match(await send(twice), { status: 200, consumer: 'alice' })
    for (const text of ['a', 'a.b.c', `a.${btoa('null')}.c`, `a.${btoa('7')}.c`, '..', `.${'['.repeat(3000)}.`]) {
      t.match(await send(text), { status: 401, reason: /^jwt_(malformed|issuer)$/ }, text.slice(0, 20))
    }
    idp.state.keys = [{ ...keys.otherRsa.publicKey.export({ format: 'jwk' }), kid: 'two' }]
    const next = token(claims({ iss: 'https://set', aud: 'api' }), keys.otherRsa, { alg: 'RS256', kid: 'two' })
    t.match(await send(next), { status: 200 }, 'rotated')
    t.match(await send(good), { status: 401 }, 'a remembered token of a withdrawn key')
  })

  t.test(`key sets by discovery over ${protocol}`, async (t) => {
    const [one, two] = [await provider(t, keys.rsa), await provider(t, keys.otherRsa)]
    two.state.metadata = (_request, response) =>
      void response.end(JSON.stringify({ issuer: 'two', jwks_uri: `${two.url}/keys` }))
    const issuers = [
      { issuer: one.url, discovery: true },
      { issuer: 'two', discovery: `${two.url}/meta` }
    ]
    const { send, metrics } = await gatewayWith(t, { issuers }, { protocol })
    for (let i = 0; i < 2; i++) {
      t.match(await send(byRsa({ iss: one.url })), { status: 200, consumer: `${one.url}|ann` })
      t.match(await send(byRsa({ iss: 'two' }, keys.otherRsa)), { status: 200, consumer: 'two|ann' })
    }
    t.match(await send(byRsa({ iss: one.url }, keys.otherRsa)), { status: 401, reason: 'jwt_signature' })
    t.match(await send(byRsa({ iss: 'two' })), { status: 401, reason: 'jwt_signature' })
    t.strictSame(one.fetched, ['/.well-known/openid-configuration', '/keys'])
    t.strictSame(two.fetched, ['/meta', '/keys'])
    t.match(await metrics(), `jingwei_edge_key_set_up{url="${one.url}/.well-known/openid-configuration"} 1`)
  })
}

t.test('access tokens of a real OpenID provider, found by discovery', async (t) => {
  let handle: RequestListener = (_request, response) => void response.end()
  const service = await startService((request, response) => handle(request, response))
  t.teardown(service.close)
  const clients = ['reader', 'writer'].map((client_id) => ({
    client_id,
    client_secret: 'secret',
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    id_token_signed_response_alg: 'ES256'
  }))
  const jwk = { ...keys.p256.privateKey.export({ format: 'jwk' }), kid: 'one', use: 'sig', alg: 'ES256' }
  const provider = new Provider(service.url, {
    clients,
    jwks: { keys: [jwk] },
    cookies: { keys: ['a key of the tests'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: async () => 'urn:api',
        getResourceServerInfo: async () => ({
          scope: 'read write',
          audience: 'api',
          accessTokenTTL: 60,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: 'ES256' } }
        })
      }
    },
    ttl: { ClientCredentials: 60 }
  })
  handle = provider.callback()
  const tokenOf = async (client: string, scope: string) => {
    const body = new URLSearchParams({ grant_type: 'client_credentials', scope })
    const authorization = `Basic ${btoa(`${client}:secret`)}`
    const response = await fetch(`${service.url}/token`, { method: 'POST', headers: { authorization }, body })
    return String(((await response.json()) as { access_token: unknown }).access_token)
  }
  const jwt = { issuer: service.url, discovery: true, audience: 'api', scopes: ['write'] }
  const { send } = await gatewayWith(t, jwt)
  t.match(await send(await tokenOf('writer', 'read write')), { status: 200, consumer: 'writer' })
  t.match(await send(await tokenOf('reader', 'read')), { status: 403, reason: 'jwt_scope' })
})

t.test('metadata of another issuer are refused, and the right ones are used as soon as they are there', async (t) => {
  const idp = await provider(t, keys.rsa)
  const wrong: Respond = (_request, response) =>
    void response.end(JSON.stringify({ issuer: `${idp.url}/`, jwks_uri: `${idp.url}/keys` }))
  idp.state.metadata = wrong
  const { send, log } = await gatewayWith(t, { issuer: `${idp.url}`, discovery: true })
  const good = byRsa({ iss: idp.url })
  const refused = await send(good)
  t.match(refused, { status: 503, code: 'JW_KEYS_UNAVAILABLE', headers: { 'retry-after': '1' } })
  t.match(
    log.find(({ url }) => String(url).startsWith(idp.url)),
    { err: { message: `the metadata are of the issuer "${idp.url}/", not of "${idp.url}"` } }
  )
  t.notOk(idp.fetched.includes('/keys'), 'their key set is not fetched')
  idp.state.metadata = null
  await eventually(async () => (await send(good)).status === 200)
  idp.state.metadata = wrong
  t.match(await send(byRsa({ iss: idp.url, n: 1 })), { status: 200 }, 'the last good key set stays in use')
})

t.test('metadata of every wrong kind', async (t) => {
  const good = { issuer: 'i', jwks_uri: 'http://h/keys' }
  t.equal(keySetUrl(good, 'i', 'http://h/meta'), 'http://h/keys')
  t.equal(keySetUrl({ ...good, jwks_uri: 'https://k/keys' }, 'i', 'https://h/meta'), 'https://k/keys')
  for (const metadata of [null, 7, 'text', [], {}, { issuer: 'j' }, { issuer: ['i'] }, { ...good, issuer: 'I' }]) {
    t.throws(
      () => keySetUrl(metadata, 'i', 'http://h/meta'),
      /^the metadata are of the issuer/,
      JSON.stringify(metadata)
    )
  }
  for (const jwks_uri of [undefined, 7, '', '/keys', 'file:///keys', 'http://', ['http://h']]) {
    t.throws(() => keySetUrl({ ...good, jwks_uri }, 'i', 'http://h/meta'), { message: /no jwks_uri/ }, String(jwks_uri))
  }
  t.throws(() => keySetUrl(good, 'i', 'https://h/meta'), { message: /not https/ }, 'a key set without encryption')
  try {
    keySetUrl({ issuer: 'x'.repeat(1e6) }, 'i', 'http://h/meta')
  } catch (error) {
    t.ok((error as Error).message.length < 300, 'a message has only a part of a foreign text')
  }
})

t.test('metadata that are slow, huge, redirected or no JSON leave the gateway serving', async (t) => {
  const idp = await provider(t, keys.rsa)
  const ways: Respond[] = [
    (_request, response) => void response.writeHead(302, { location: `${idp.url}/keys` }).end(),
    (_request, response) => void response.end('x'.repeat(2_000_000)),
    (_request, response) => void response.end('{'),
    (request) => void request.socket.destroy()
  ]
  for (const way of ways) {
    idp.state.metadata = way
    const { send } = await gatewayWith(t, { issuer: idp.url, discovery: true })
    t.match(await send(byRsa({ iss: idp.url })), { status: 503, code: 'JW_KEYS_UNAVAILABLE' })
  }
})

t.test('tokens without exp only if configured', async (t) => {
  const { exp: _exp, ...endless } = claims()
  const strict = await gatewayWith(t, { secret })
  t.match(await strict.send(token(endless)), { status: 401, reason: 'jwt_claim' })
  const idp = await provider(t, keys.rsa)
  const sign = (more: object) => token({ ...endless, ...more }, keys.rsa, { alg: 'RS256', kid: 'one' })
  const ways = [
    [{ secret }, (more: object) => token({ ...endless, ...more })],
    [{ jwks: `${idp.url}/keys` }, sign]
  ] as const
  for (const [key, sign] of ways) {
    const { send } = await gatewayWith(t, { ...key, requireExp: false })
    for (let i = 0; i < 2; i++) t.match(await send(sign({})), { status: 200, consumer: 'ann' })
    t.match(await send(sign({ exp: seconds() + 60 })), { status: 200 })
    t.match(await send(sign({ exp: seconds() - 60 })), { status: 401, reason: 'jwt_expired' })
    for (const exp of [null, 'never', {}, []]) t.match(await send(sign({ exp })), { status: 401 }, JSON.stringify(exp))
    t.match(await send(sign({ nbf: seconds() + 60 })), { status: 401, reason: 'jwt_not_yet_valid' })
  }
})

t.test('a token without exp is remembered, and refused once its key has left the set', async (t) => {
  const idp = await provider(t, keys.rsa)
  const { exp: _exp, ...endless } = claims()
  const { send } = await gatewayWith(t, { jwks: `${idp.url}/keys`, requireExp: false, jwksCooldown: 0 })
  const text = token(endless, keys.rsa, { alg: 'RS256', kid: 'one' })
  t.match(await send(text), { status: 200 })
  idp.state.keys = [{ ...keys.otherRsa.publicKey.export({ format: 'jwk' }), kid: 'two' }]
  t.match(await send(token(claims(), keys.otherRsa, { alg: 'RS256', kid: 'two' })), { status: 200 })
  t.match(await send(text), { status: 401, reason: 'jwt_key' })
})

t.test('a WebSocket handshake with a token of the second issuer', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const issuers = [
    { issuer: 'a', secret: `${secret} of a` },
    { issuer: 'b', secret }
  ]
  const { port } = await gatewayWith(t, { issuers }, { service: service.url })
  const { peer } = await open(port, '/ws', [`authorization: Bearer ${token(claims({ iss: 'b' }))}`])
  peer.socket.destroy()
  const forged = handshake('/ws', [`authorization: Bearer ${token(claims({ iss: 'a' }))}`])
  t.match(await raw(port, forged), /^HTTP\/1.1 401 /)
})

t.test('the files of public keys of several issuers', async (t) => {
  const folder = t.testdir({})
  writeFileSync(join(folder, 'key.pem'), pem(keys.p256))
  const issuers = [
    { issuer: 'a', secret },
    { issuer: 'b', publicKey: join(folder, 'key.pem') }
  ]
  const { send } = await gatewayWith(t, { issuers })
  t.match(await send(token(claims({ iss: 'b' }), keys.p256, { alg: 'ES256' })), { status: 200, consumer: 'b|ann' })
})

t.test('tokens for tests are those of the first issuer with a secret, or of the one that is asked for', async (t) => {
  const options = withTestKey(
    jwtOptions({
      scopes: ['read', 'write'],
      claims: { 'realm.roles': ['admin', 'user'] },
      issuers: [
        { issuer: 'https://a', discovery: true, audience: ['api'] },
        { issuer: 'https://b', secret },
        { issuer: 'https://c', jwks: 'https://c/keys', algorithms: ['EdDSA'] }
      ]
    })
  )
  const { send } = await gatewayWith(
    t,
    JSON.parse(JSON.stringify({ ...options, clockSkew: '5s', maxTokenSize: '8kb', jwksMaxAge: '1m', jwksCooldown: 0 }))
  )
  const request = { issuedAt: Date.now(), expiresIn: 60 }
  for (const [given, id] of [
    [{}, 'https://b|'],
    [{ iss: 'https://a' }, 'https://a|'],
    [{ iss: 'https://c' }, 'https://c|']
  ] as const) {
    t.match(await send(mint(options, { claims: { sub: 'x', ...given }, ...request })), {
      status: 200,
      consumer: `${id}x`
    })
  }
})
