import type { KeyObject } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import t from 'tap'
import jwt from '../../../plugins/edge/concerns/jwt/index.ts'
import type { KeySet, KeySetOptions, TokenOfKey } from '../../../plugins/edge/concerns/jwt/jwks.ts'
import { createKeySet } from '../../../plugins/edge/concerns/jwt/jwks.ts'
import { code, edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { jwtOptions } from '../../helpers/edge/jwt-options.ts'
import { claims, keys, pem, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import { gatewayBefore, get, startEcho, startGateway } from '../../helpers/gateway.ts'

const edgeApp = edgeAppWith(jwt)

type Respond = (request: IncomingMessage, response: ServerResponse) => void

const jwk = (pair: { publicKey: KeyObject }, more: object = {}) => ({
  ...pair.publicKey.export({ format: 'jwk' }),
  ...more
})
const set =
  (...list: unknown[]): Respond =>
  (_request, response) =>
    response.end(JSON.stringify({ keys: list }))

/** An identity provider with a changeable response and a count of requests. */
async function provider(t: Test, respond: Respond) {
  const state = { respond, fetches: 0, url: '' }
  const server = createServer((request, response) => {
    state.fetches++
    state.respond(request, response)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`
  return state
}

function keySet(t: Test, url: string, more: Partial<KeySetOptions> = {}) {
  const clock = { ms: 1_000_000 }
  const logged: string[] = []
  const log = (_: unknown, message?: string) => logged.push(String(message))
  const options = { url, maxAge: 60_000, cooldown: 10_000, timeoutMs: 500, retryMs: 1e9, now: () => clock.ms, ...more }
  const set = createKeySet(options, { info: log, warn: log } as never)
  t.teardown(() => set.close())
  return { set, clock, logged }
}

const unsigned = (header: object): TokenOfKey => ({ header, input: '', signature: '' })

/** The fields of a token that select its key. */
function signed(pair: { privateKey: KeyObject }, header: { alg: string; kid?: string }): TokenOfKey {
  const [encodedHeader, payload, signature = ''] = token(claims(), pair as never, header).split('.')
  return { header, input: `${encodedHeader}.${payload}`, signature }
}

const refused = (set: KeySet, header: object) =>
  set.key(unsigned(header)).then(
    () => 'accepted',
    (error: { code: string }) => error.code
  )

t.test('the key that a token names is used if its algorithm matches', async (t) => {
  const idp = await provider(
    t,
    set(
      jwk(keys.rsa, { kid: 'rsa', use: 'sig', alg: 'RS256' }),
      jwk(keys.otherRsa, { kid: 'any-rsa' }),
      jwk(keys.p256, { kid: 'ec' }),
      jwk(keys.ed25519, { kid: 'ed', key_ops: ['verify'] })
    )
  )
  const { set: keySetOf } = keySet(t, idp.url)
  t.equal(await keySetOf.key(unsigned({ kid: 'rsa', alg: 'RS256' })), pem(keys.rsa))
  t.equal(await keySetOf.key(unsigned({ kid: 'any-rsa', alg: 'PS512' })), pem(keys.otherRsa))
  t.equal(await keySetOf.key(unsigned({ kid: 'ec', alg: 'ES256' })), pem(keys.p256))
  t.equal(await keySetOf.key(unsigned({ kid: 'ed', alg: 'EdDSA' })), pem(keys.ed25519))
  for (const header of [
    { kid: 'rsa', alg: 'RS512' },
    { kid: 'ec', alg: 'ES384' },
    { kid: 'ec', alg: 'RS256' },
    { kid: 'rsa', alg: 'HS256' },
    { kid: 'rsa', alg: 'none' },
    { kid: 'rsa' },
    { kid: 7, alg: 'RS256' },
    { kid: { rsa: true }, alg: 'RS256' },
    { kid: null, alg: 'RS256' }
  ]) {
    t.equal(await refused(keySetOf, header), 'JW_TOKEN_INVALID', JSON.stringify(header))
  }
  t.equal(idp.fetches, 1, 'none of which causes a fetch')
})

t.test('a token that names no key is verified by the key that signed it, of those for its algorithm', async (t) => {
  const idp = await provider(
    t,
    set(
      jwk(keys.rsa),
      jwk(keys.otherRsa, { kid: 'b' }),
      jwk(keys.p256),
      jwk(keys.p521),
      jwk(keys.ed25519, { kid: 'e' })
    )
  )
  const { set: keySetOf } = keySet(t, idp.url)
  for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512']) {
    t.equal(await keySetOf.key(signed(keys.rsa, { alg })), pem(keys.rsa), alg)
    t.equal(await keySetOf.key(signed(keys.otherRsa, { alg })), pem(keys.otherRsa), alg)
  }
  t.equal(await keySetOf.key(signed(keys.p256, { alg: 'ES256' })), pem(keys.p256))
  t.equal(await keySetOf.key(signed(keys.p521, { alg: 'ES512' })), pem(keys.p521))
  t.equal(await keySetOf.key(signed(keys.ed25519, { alg: 'EdDSA' })), pem(keys.ed25519))
  const forged = await keySetOf.key(signed(keys.smallRsa, { alg: 'RS256' })).then(
    () => 'accepted',
    ({ code }) => code
  )
  t.equal(forged, 'JW_TOKEN_INVALID')
  t.equal(await refused(keySetOf, { alg: 'ES384' }), 'JW_TOKEN_INVALID')
  t.equal(idp.fetches, 1)
})

t.test('a token that names a key can be verified by a key without an id', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa), jwk(keys.otherRsa, { kid: 'b' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  t.equal(await keySetOf.key(signed(keys.rsa, { alg: 'RS256', kid: 'x' })), pem(keys.rsa))
  t.equal(idp.fetches, 1)
  const code = (token: TokenOfKey) =>
    keySetOf.key(token).then(
      () => 'accepted',
      (error: { code: string }) => error.code
    )
  t.equal(
    await code(signed(keys.otherRsa, { alg: 'RS256', kid: 'x' })),
    'JW_TOKEN_INVALID',
    'a key with another id does not verify the token'
  )
  idp.respond = set(jwk(keys.p256))
  clock.ms += 10_000
  t.equal(
    await keySetOf.key(signed(keys.p256, { alg: 'ES256' })),
    pem(keys.p256),
    'a key without an id is found after rotation'
  )
  t.equal(idp.fetches, 2)
})

t.test('at most ten keys without ids are tried', async (t) => {
  const many = Array.from({ length: 10 }, () => jwk(keys.otherRsa))
  const idp = await provider(t, set(...many.slice(1), jwk(keys.rsa)))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  t.equal(await keySetOf.key(signed(keys.rsa, { alg: 'RS256' })), pem(keys.rsa))
  idp.respond = set(...many, jwk(keys.rsa))
  clock.ms += 60_000
  await keySetOf.refresh()
  await t.rejects(keySetOf.key(signed(keys.rsa, { alg: 'RS256' })), { code: 'JW_TOKEN_INVALID' })
})

t.test('keys that cannot verify tokens are ignored', async (t) => {
  const idp = await provider(
    t,
    set(
      null,
      'text',
      {},
      { kty: 'oct', k: 'c2VjcmV0', kid: 'oct' },
      { kty: 'RSA', n: '!!', e: 'AQAB', kid: 'broken' },
      { ...jwk(keys.p256, { kid: 'off-curve' }), x: Buffer.alloc(32, 1).toString('base64url') },
      jwk(keys.rsa, { kid: 'enc', use: 'enc' }),
      jwk(keys.rsa, { kid: 'ops', key_ops: ['encrypt'] }),
      jwk(keys.rsa, { kid: 'alg', alg: 'RSA-OAEP' }),
      jwk(keys.rsa, { kid: 'hs', alg: 'HS256' }),
      jwk(keys.smallRsa, { kid: 'small' }),
      jwk(keys.k256, { kid: 'k1' }),
      jwk(keys.rsa, { kid: ['array'] }),
      jwk(keys.rsa, { kid: 'good' })
    )
  )
  const { set: keySetOf } = keySet(t, idp.url)
  t.equal(await keySetOf.key(unsigned({ kid: 'good', alg: 'RS256' })), pem(keys.rsa))
  t.equal(await keySetOf.key(signed(keys.rsa, { alg: 'RS256' })), pem(keys.rsa))
  for (const kid of ['oct', 'broken', 'off-curve', 'enc', 'ops', 'alg', 'hs', 'small', 'k1', 'array']) {
    for (const alg of ['RS256', 'HS256', 'ES256']) t.equal(await refused(keySetOf, { kid, alg }), 'JW_TOKEN_INVALID')
  }
})

t.test('no more than a hundred keys are kept, and the log says so', async (t) => {
  const many = Array.from({ length: 150 }, (_, i) => jwk(keys.p256, { kid: `k${i}` }))
  const idp = await provider(t, set(...many))
  const { set: keySetOf, logged } = keySet(t, idp.url)
  t.equal(await keySetOf.key(unsigned({ kid: 'k99', alg: 'ES256' })), pem(keys.p256))
  t.equal(await refused(keySetOf, { kid: 'k100', alg: 'ES256' }), 'JW_TOKEN_INVALID')
  await keySetOf.refresh()
  t.same(logged, ['key set has more than 100 keys: the rest is ignored'], 'once')
})

t.test('after rotation, an unknown key id causes a fetch, and a withdrawn key is removed', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'old' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  t.equal(await keySetOf.key(unsigned({ kid: 'old', alg: 'RS256' })), pem(keys.rsa))
  idp.respond = set(jwk(keys.otherRsa, { kid: 'new' }))
  t.equal(await refused(keySetOf, { kid: 'new', alg: 'RS256' }), 'JW_TOKEN_INVALID', 'no fetch within the cooldown')
  clock.ms += 10_000
  const all = await Promise.all(Array.from({ length: 20 }, () => keySetOf.key(unsigned({ kid: 'new', alg: 'RS256' }))))
  t.same(new Set(all), new Set([pem(keys.otherRsa)]))
  t.equal(idp.fetches, 2, 'all waiting requests share one fetch')
  t.equal(await refused(keySetOf, { kid: 'old', alg: 'RS256' }), 'JW_TOKEN_INVALID')
})

t.test('a flood of unknown key ids makes one fetch per cooldown', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' }))
  for (let round = 1; round <= 3; round++) {
    clock.ms += 10_000
    const flood = Array.from({ length: 500 }, (_, i) => refused(keySetOf, { kid: `x${round}-${i}`, alg: 'RS256' }))
    t.same(new Set(await Promise.all(flood)), new Set(['JW_TOKEN_INVALID']))
    for (let i = 0; i < 50; i++) await refused(keySetOf, { kid: `y${i}`, alg: 'RS256' })
    t.equal(idp.fetches, 1 + round)
  }
})

t.test('an old set is fetched again in the background and serves meanwhile', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' }))
  let release = () => {}
  idp.respond = (_request, response) => {
    release = () => response.end(JSON.stringify({ keys: [jwk(keys.otherRsa, { kid: 'a' })] }))
  }
  clock.ms += 60_000
  t.equal(
    await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })),
    pem(keys.rsa),
    'the old set is used without waiting'
  )
  t.equal(await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })), pem(keys.rsa))
  while (idp.fetches < 2) await new Promise((resolve) => setImmediate(resolve))
  release()
  await keySetOf.refresh()
  t.equal(await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })), pem(keys.otherRsa))
  t.equal(idp.fetches, 2)
})

t.test('during an outage, the last valid set stays in use, and the outage is logged once', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const { set: keySetOf, clock, logged } = keySet(t, idp.url, { timeoutMs: 100 })
  await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' }))
  const forged = JSON.stringify({ keys: [jwk(keys.otherRsa, { kid: 'a' })] })
  const bad: [string, Respond][] = [
    ['status 500', (_request, response) => response.writeHead(500).end(forged)],
    ['a redirect', (_request, response) => response.writeHead(302, { location: '/other' }).end()],
    ['not JSON', (_request, response) => response.end('<html>')],
    ['no set', (_request, response) => response.end('null')],
    ['an empty set', set()],
    ['too large', (_request, response) => response.end(forged.padEnd(1024 * 1024 + 1))],
    ['reset', (request) => request.socket.destroy()],
    ['silence', () => {}],
    ['a body without end', (_request, response) => response.write('{"keys":[')]
  ]
  for (const [name, respond] of bad) {
    idp.respond = respond
    clock.ms += 3_600_000
    const before = idp.fetches
    t.equal(await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })), pem(keys.rsa), name)
    await keySetOf.refresh()
    t.equal(idp.fetches, before + 1, name)
    t.equal(await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })), pem(keys.rsa), name)
  }
  t.same(logged, ['cannot fetch the key set: the previous one stays in use; retrying every second'])
  t.equal(
    await refused(keySetOf, { kid: 'b', alg: 'RS256' }),
    'JW_KEYS_UNAVAILABLE',
    'an unknown key id may be a new key'
  )
  idp.respond = set(jwk(keys.rsa, { kid: 'b' }))
  await keySetOf.refresh()
  t.equal(await keySetOf.key(unsigned({ kid: 'b', alg: 'RS256' })), pem(keys.rsa))
  t.equal(logged.length, 2, 'the end of the outage is logged once')
})

t.test('without a first set, requests get 503, and only the timer fetches', async (t) => {
  const idp = await provider(t, (_request, response) => response.writeHead(503).end())
  const { set: keySetOf, clock } = keySet(t, idp.url)
  for (let i = 0; i < 10; i++) {
    t.equal(await refused(keySetOf, { kid: 'a', alg: 'RS256' }), 'JW_KEYS_UNAVAILABLE')
    clock.ms += 10_000
  }
  t.equal(idp.fetches, 1)
})

t.test('the recovery of a server is detected without a request', async (t) => {
  const idp = await provider(t, (_request, response) => response.writeHead(503).end())
  const { set: keySetOf, logged } = keySet(t, idp.url, { retryMs: 5 })
  t.equal(keySetOf.isUp(), null)
  await keySetOf.refresh()
  t.equal(keySetOf.isUp(), false)
  t.equal(keySetOf.age(), null)
  await eventually(() => idp.fetches > 3)
  idp.respond = set(jwk(keys.rsa, { kid: 'a' }))
  await eventually(() => keySetOf.age() !== null)
  t.equal(await keySetOf.key(unsigned({ kid: 'a', alg: 'RS256' })), pem(keys.rsa))
  t.equal(keySetOf.isUp(), true)
  const { fetches } = idp
  await sleep(50)
  t.equal(idp.fetches, fetches, 'the timer stops after the recovery')
  t.same(logged, [
    'cannot fetch the key set: tokens cannot be verified; retrying every second',
    'key set fetched again'
  ])
})

t.test('credentials in the URL are used, and not logged', async (t) => {
  const credentials: (string | undefined)[] = []
  const idp = await provider(t, (request, response) => {
    credentials.push(request.headers.authorization)
    response.writeHead(500).end()
  })
  const url = new URL(`${idp.url}?api_key=query-secret&code=query-secret`)
  url.username = 'gate'
  url.password = 'p@ss word'
  const lines: string[] = []
  const log = (...args: unknown[]) => lines.push(JSON.stringify(args))
  const keySetOf = createKeySet({ url: url.href, maxAge: 1, cooldown: 1, retryMs: 1e9 }, {
    info: log,
    warn: log
  } as never)
  t.teardown(() => keySetOf.close())
  await keySetOf.refresh()
  t.same(credentials, [`Basic ${btoa('gate:p@ss word')}`])
  idp.respond = set(jwk(keys.rsa, { kid: 'a' }))
  await keySetOf.refresh()
  t.equal(lines.length, 2)
  for (const line of lines) {
    t.match(line, '/jwks.json')
    t.notMatch(line, /gate|p@ss|p%40ss|query-secret/)
  }
})

t.test('metadata in place of a key set, and a key set in place of metadata, are logged with advice', async (t) => {
  const errors: string[] = []
  const log = ({ err }: { err?: Error }) => void errors.push(String(err?.message))
  const options = { maxAge: 1, cooldown: 1, retryMs: 1e9 }
  const idp = await provider(t, (_, response) => {
    response.end('{"issuer":"https://id","jwks_uri":"https://id/keys"}')
  })
  const metadata = createKeySet({ ...options, url: idp.url }, { info: log, warn: log } as never)
  t.teardown(() => metadata.close())
  await metadata.refresh()
  const other = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const found = createKeySet({ ...options, url: other.url, issuer: 'https://id' }, { info: log, warn: log } as never)
  t.teardown(() => found.close())
  await found.refresh()
  t.strictSame(errors, [
    'these are the metadata of an issuer and no key set: write issuer: ISSUER and discovery: true, or this URL under discovery, in place of jwks',
    'this is a key set and no metadata: write jwks: URL in place of discovery'
  ])
})

t.test('the metrics of key sets whose URLs differ in the query only are those of the worst one', async (t) => {
  const good = set(jwk(keys.rsa, { kid: 'a' }))
  const idp = await provider(t, (request, response) => {
    if (request.url?.endsWith('one')) good(request, response)
    else response.writeHead(500).end()
  })
  const service = await startEcho()
  t.teardown(service.close)
  const route = (name: string) => ({
    name,
    match: { path: `/${name}` },
    service: 'any',
    edge: { jwt: { jwks: `${idp.url}?app=${name}` } }
  })
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [route('one'), route('two')]
  })
  t.teardown(gateway.close)
  const series = async () => (await gateway.server.metrics.metrics()).match(/^jingwei_edge_key_set_(up|age).*$/gm) ?? []
  await eventually(async () => (await series()).length === 2)
  await eventually(async () => (await series())[0] === `jingwei_edge_key_set_up{url="${idp.url}?***"} 0`)
})

t.test('closing does not wait for a silent provider', async (t) => {
  const idp = await provider(t, () => {})
  const { set: keySetOf } = keySet(t, idp.url, { timeoutMs: 60_000 })
  const waiting = refused(keySetOf, { kid: 'a', alg: 'RS256' })
  while (idp.fetches < 1) await new Promise((resolve) => setImmediate(resolve))
  const start = performance.now()
  await keySetOf.close()
  t.ok(performance.now() - start < 1000)
  t.equal(await waiting, 'JW_KEYS_UNAVAILABLE')
  await keySetOf.refresh()
  t.equal(idp.fetches, 1, 'and sends no further request')
})

t.test('a gateway verifies tokens by a key set', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' }), jwk(keys.p256, { kid: 'e' })))
  const options = jwtOptions({ jwks: idp.url, issuer: 'me', jwksCooldown: 0 })
  const app = await edgeApp([
    { name: 'orders', edge: { jwt: options } },
    { name: 'more', edge: { jwt: { ...options, forward: { sub: 'x-user' } } } }
  ])
  t.teardown(() => app.close())
  await app.ready()
  const status = async (value: string, url = '/orders') =>
    (await app.inject({ url, headers: { authorization: `Bearer ${value}` } })).statusCode
  const good = token(claims({ iss: 'me' }), keys.rsa, { alg: 'RS256', kid: 'a' })
  t.equal(await status(good), 200)
  t.equal(await status(good, '/more'), 200)
  t.equal(idp.fetches, 1, 'routes with the same key set share it')
  t.equal(await status(token(claims({ iss: 'me' }), keys.p256, { alg: 'ES256', kid: 'e' })), 200)
  t.equal(await status(token(claims({ iss: 'me' }), keys.rsa, { alg: 'PS384', kid: 'a' })), 200)
  t.equal(await status(token(claims({ iss: 'me' }), keys.otherRsa, { alg: 'RS256', kid: 'a' })), 401, 'forged')
  t.equal(
    await status(token(claims({}), keys.rsa, { alg: 'RS256', kid: 'a' })),
    401,
    'a token without an issuer is refused'
  )
  t.equal(await status(token(claims({ iss: 'me' }), pem(keys.rsa), { alg: 'HS256', kid: 'a' })), 401, 'confusion')
  t.equal(await status(token(claims({ iss: 'me' }), secret, { alg: 'HS256', kid: 'x' })), 401)
  t.equal(await status(token(claims({ iss: 'me' }), '', { alg: 'none', kid: 'a' })), 401)
  t.equal(await status(token(claims({ iss: 'me' }), keys.rsa, { alg: 'RS256', kid: { a: 1 } })), 401)
  t.equal(await status('a.b.c'), 401)
  const old = token(claims({ iss: 'me', exp: 1 }), keys.rsa, { alg: 'RS256', kid: 'a' })
  const response = await app.inject({ url: '/orders', headers: { authorization: `Bearer ${old}` } })
  t.equal(code(response), 'JW_TOKEN_EXPIRED')
  t.equal(idp.fetches, 1)

  idp.respond = set(jwk(keys.otherRsa, { kid: 'n' }))
  t.equal(await status(token(claims({ iss: 'me' }), keys.otherRsa, { alg: 'RS256', kid: 'n' })), 200, 'rotated')
  t.equal(await status(good), 401, 'a token of a withdrawn key is refused, although it was verified before')
})

t.test('a gateway starts without its key set', async (t) => {
  const idp = await provider(t, () => {})
  const app = await edgeApp([{ name: 'orders', edge: { jwt: jwtOptions({ jwks: idp.url }) } }])
  const start = performance.now()
  await app.ready()
  t.ok(performance.now() - start < 1000)
  await app.close()

  const gone = await edgeApp([{ name: 'orders', edge: { jwt: jwtOptions({ jwks: 'http://127.0.0.1:1/' }) } }])
  t.teardown(() => gone.close())
  const headers = { authorization: `Bearer ${token(claims(), keys.rsa, { alg: 'RS256', kid: 'a' })}` }
  const response = await gone.inject({ url: '/orders', headers })
  t.equal(response.statusCode, 503)
  t.equal(code(response), 'JW_KEYS_UNAVAILABLE')
})

t.test(
  'a gateway whose key set cannot be fetched responds with 503 and Retry-After, logs one line and counts',
  async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const idp = await provider(t, (request) => request.socket.destroy())
    const gateway = await gatewayBefore(
      t,
      service.url,
      { admin: { port: 0 }, edge: { jwt: { jwks: idp.url } } },
      { log: true }
    )
    await eventually(() => idp.fetches > 0)
    const metric = async () => /^jingwei_edge_key_set_up\{.*\} (\d)$/m.exec(await gateway.server.metrics.metrics())?.[1]
    await eventually(() => gateway.log.some(({ url }) => url === idp.url))
    const bearer = [`Authorization: Bearer ${token(claims(), keys.rsa, { alg: 'RS256', kid: 'a' })}`]
    for (let i = 0; i < 3; i++) {
      const { status, headers } = await get(gateway.port, '/', bearer)
      t.equal(status, 503)
      t.equal(headers['retry-after'], '1')
    }
    t.equal(await metric(), '0')
    idp.respond = set(jwk(keys.rsa, { kid: 'a' }))
    await eventually(() => gateway.log.filter(({ url }) => url === idp.url).length > 1)
    t.equal((await get(gateway.port, '/', bearer)).status, 200)
    t.equal(await metric(), '1')
    const lines = gateway.log.filter(({ msg }) => msg !== 'request')
    t.equal(lines.filter(({ err }) => err !== undefined).length, 1, 'no error for each request')
    t.equal(lines.filter(({ url }) => url === idp.url).length, 2, 'one line for the failure, one for the recovery')
  }
)

t.test('Bearer may be followed by any number of spaces', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa)))
  const app = await edgeApp([
    { name: 'set', edge: { jwt: jwtOptions({ jwks: idp.url }) } },
    { name: 'secret', edge: { jwt: jwtOptions({ secret }) } }
  ])
  t.teardown(() => app.close())
  for (const [url, value] of [
    ['/set', token(claims(), keys.rsa, { alg: 'RS256' })],
    ['/secret', token(claims())]
  ] as const) {
    for (const before of ['Bearer ', 'Bearer  ', 'bearer     ']) {
      t.equal((await app.inject({ url, headers: { authorization: before + value } })).statusCode, 200, before)
    }
    for (const before of ['Bearer', 'Bearer\t', 'Bearer \t', 'Bearer ,']) {
      t.equal((await app.inject({ url, headers: { authorization: before + value } })).statusCode, 401, before)
    }
  }
})
