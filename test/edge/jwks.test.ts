import type { KeyObject } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import type { KeySet } from '../../plugins/edge/jwks.ts'
import { createKeySet } from '../../plugins/edge/jwks.ts'
import { code, edgeApp, jwtOptions } from './helpers/edge-app.ts'
import { claims, keys, pem, secret, token } from './helpers/tokens.ts'

type Answer = (request: IncomingMessage, response: ServerResponse) => void

const jwk = (pair: { publicKey: KeyObject }, more: object = {}) => ({
  ...pair.publicKey.export({ format: 'jwk' }),
  ...more
})
const set =
  (...list: unknown[]): Answer =>
  (_request, response) =>
    response.end(JSON.stringify({ keys: list }))

/** An identity provider whose answer can be changed, and that counts how often it is asked. */
async function provider(t: Test, answer: Answer) {
  const state = { answer, fetches: 0, url: '' }
  const server = createServer((request, response) => {
    state.fetches++
    state.answer(request, response)
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

function keySet(t: Test, url: string, more: { maxAge?: number; cooldown?: number; timeoutMs?: number } = {}) {
  const clock = { ms: 1_000_000 }
  const logged: string[] = []
  const log = (_: unknown, message?: string) => logged.push(String(message))
  const options = { url, maxAge: 60_000, cooldown: 10_000, timeoutMs: 500, now: () => clock.ms, ...more }
  const set = createKeySet(options, { info: log, warn: log } as never)
  t.teardown(() => set.close())
  return { set, clock, logged }
}

const refused = (set: KeySet, header: object) =>
  set.key(header).then(
    () => 'accepted',
    (error: { code: string }) => error.code
  )

t.test('the key that a token names, if its algorithm fits', async (t) => {
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
  t.equal(await keySetOf.key({ kid: 'rsa', alg: 'RS256' }), pem(keys.rsa))
  t.equal(await keySetOf.key({ kid: 'any-rsa', alg: 'PS512' }), pem(keys.otherRsa))
  t.equal(await keySetOf.key({ kid: 'ec', alg: 'ES256' }), pem(keys.p256))
  t.equal(await keySetOf.key({ kid: 'ed', alg: 'EdDSA' }), pem(keys.ed25519))
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
  t.equal(idp.fetches, 1, 'none of which is worth a fetch')
})

t.test('a token that names no key: only if one key alone fits', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa), jwk(keys.otherRsa, { kid: 'b', alg: 'PS256' }), jwk(keys.p256)))
  const { set: keySetOf } = keySet(t, idp.url)
  t.equal(await keySetOf.key({ alg: 'ES256' }), pem(keys.p256))
  t.equal(await keySetOf.key({ alg: 'RS256' }), pem(keys.rsa))
  t.equal(await refused(keySetOf, { alg: 'PS256' }), 'JW_TOKEN_INVALID')
  t.equal(await refused(keySetOf, { alg: 'ES384' }), 'JW_TOKEN_INVALID')
})

t.test('keys that cannot verify tokens are passed over', async (t) => {
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
  t.equal(await keySetOf.key({ kid: 'good', alg: 'RS256' }), pem(keys.rsa))
  t.equal(await keySetOf.key({ alg: 'RS256' }), pem(keys.rsa), 'it is the only one')
  for (const kid of ['oct', 'broken', 'off-curve', 'enc', 'ops', 'alg', 'hs', 'small', 'k1', 'array']) {
    for (const alg of ['RS256', 'HS256', 'ES256']) t.equal(await refused(keySetOf, { kid, alg }), 'JW_TOKEN_INVALID')
  }
})

t.test('no more than a hundred keys are kept', async (t) => {
  const many = Array.from({ length: 150 }, (_, i) => jwk(keys.p256, { kid: `k${i}` }))
  const idp = await provider(t, set(...many))
  const { set: keySetOf } = keySet(t, idp.url)
  t.equal(await keySetOf.key({ kid: 'k99', alg: 'ES256' }), pem(keys.p256))
  t.equal(await refused(keySetOf, { kid: 'k100', alg: 'ES256' }), 'JW_TOKEN_INVALID')
})

t.test('rotation: a new key is fetched for, a withdrawn one is gone', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'old' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  t.equal(await keySetOf.key({ kid: 'old', alg: 'RS256' }), pem(keys.rsa))
  idp.answer = set(jwk(keys.otherRsa, { kid: 'new' }))
  t.equal(await refused(keySetOf, { kid: 'new', alg: 'RS256' }), 'JW_TOKEN_INVALID', 'not while cooling down')
  clock.ms += 10_000
  const all = await Promise.all(Array.from({ length: 20 }, () => keySetOf.key({ kid: 'new', alg: 'RS256' })))
  t.same(new Set(all), new Set([pem(keys.otherRsa)]))
  t.equal(idp.fetches, 2, 'one fetch for all who waited')
  t.equal(await refused(keySetOf, { kid: 'old', alg: 'RS256' }), 'JW_TOKEN_INVALID')
})

t.test('a flood of unknown key ids makes one fetch per cooldown', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const { set: keySetOf, clock } = keySet(t, idp.url)
  await keySetOf.key({ kid: 'a', alg: 'RS256' })
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
  await keySetOf.key({ kid: 'a', alg: 'RS256' })
  let release = () => {}
  idp.answer = (_request, response) => {
    release = () => response.end(JSON.stringify({ keys: [jwk(keys.otherRsa, { kid: 'a' })] }))
  }
  clock.ms += 60_000
  t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.rsa), 'not kept waiting')
  t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.rsa))
  while (idp.fetches < 2) await new Promise((resolve) => setImmediate(resolve))
  release()
  await keySetOf.refresh()
  t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.otherRsa))
  t.equal(idp.fetches, 2)
})

t.test('an outage: the last good set serves for as long as it takes, and is spoken of once', async (t) => {
  const idp = await provider(t, set(jwk(keys.rsa, { kid: 'a' })))
  const { set: keySetOf, clock, logged } = keySet(t, idp.url, { timeoutMs: 100 })
  await keySetOf.key({ kid: 'a', alg: 'RS256' })
  const forged = JSON.stringify({ keys: [jwk(keys.otherRsa, { kid: 'a' })] })
  const bad: [string, Answer][] = [
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
  for (const [name, answer] of bad) {
    idp.answer = answer
    clock.ms += 3_600_000
    const before = idp.fetches
    t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.rsa), name)
    await keySetOf.refresh()
    t.equal(idp.fetches, before + 1, name)
    t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.rsa), name)
  }
  t.same(logged, ['key set not fetched; the last one stays in use'])
  idp.answer = set(jwk(keys.rsa, { kid: 'b' }))
  clock.ms += 10_000
  t.equal(await keySetOf.key({ kid: 'b', alg: 'RS256' }), pem(keys.rsa))
  t.equal(logged.length, 2, 'and its end once')
})

t.test('while there has never been a set: 503, and a fetch a second at most', async (t) => {
  const idp = await provider(t, (_request, response) => response.writeHead(503).end())
  const { set: keySetOf, clock } = keySet(t, idp.url)
  for (let i = 0; i < 10; i++) t.equal(await refused(keySetOf, { kid: 'a', alg: 'RS256' }), 'JW_KEYS_UNAVAILABLE')
  t.equal(idp.fetches, 1)
  idp.answer = set(jwk(keys.rsa, { kid: 'a' }))
  clock.ms += 1000
  t.equal(await keySetOf.key({ kid: 'a', alg: 'RS256' }), pem(keys.rsa))
})

t.test('closing does not wait for a provider that is silent', async (t) => {
  const idp = await provider(t, () => {})
  const { set: keySetOf } = keySet(t, idp.url, { timeoutMs: 60_000 })
  const waiting = refused(keySetOf, { kid: 'a', alg: 'RS256' })
  while (idp.fetches < 1) await new Promise((resolve) => setImmediate(resolve))
  const start = performance.now()
  await keySetOf.close()
  t.ok(performance.now() - start < 1000)
  t.equal(await waiting, 'JW_KEYS_UNAVAILABLE')
  await keySetOf.refresh()
  t.equal(idp.fetches, 1, 'nor does it ask again')
})

t.test('a gateway with a key set', async (t) => {
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
  t.equal(idp.fetches, 1, 'routes that verify alike share it')
  t.equal(await status(token(claims({ iss: 'me' }), keys.p256, { alg: 'ES256', kid: 'e' })), 200)
  t.equal(await status(token(claims({ iss: 'me' }), keys.rsa, { alg: 'PS384', kid: 'a' })), 200)
  t.equal(await status(token(claims({ iss: 'me' }), keys.otherRsa, { alg: 'RS256', kid: 'a' })), 401, 'forged')
  t.equal(await status(token(claims({}), keys.rsa, { alg: 'RS256', kid: 'a' })), 401, 'no issuer')
  t.equal(await status(token(claims({ iss: 'me' }), pem(keys.rsa), { alg: 'HS256', kid: 'a' })), 401, 'confusion')
  t.equal(await status(token(claims({ iss: 'me' }), secret, { alg: 'HS256', kid: 'x' })), 401)
  t.equal(await status(token(claims({ iss: 'me' }), '', { alg: 'none', kid: 'a' })), 401)
  t.equal(await status(token(claims({ iss: 'me' }), keys.rsa, { alg: 'RS256', kid: { a: 1 } })), 401)
  t.equal(await status('a.b.c'), 401)
  const old = token(claims({ iss: 'me', exp: 1 }), keys.rsa, { alg: 'RS256', kid: 'a' })
  const response = await app.inject({ url: '/orders', headers: { authorization: `Bearer ${old}` } })
  t.equal(code(response), 'JW_TOKEN_EXPIRED')
  t.equal(idp.fetches, 1)

  idp.answer = set(jwk(keys.otherRsa, { kid: 'n' }))
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
