import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import jwt from '../../../plugins/edge/concerns/jwt/index.ts'
import type { JwtOptions } from '../../../plugins/edge/concerns/jwt/options.ts'
import { code, edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { jwtOptions } from '../../helpers/edge/jwt-options.ts'
import { claims, keys, pem, secret, token } from '../../helpers/edge/tokens.ts'

const edgeApp = edgeAppWith(jwt)

const get = (app: FastifyInstance, value: string | undefined, more: Record<string, string> = {}) =>
  app.inject({ url: '/orders', headers: { ...(value !== undefined && { authorization: value }), ...more } })

const withToken = (app: FastifyInstance, value: string, more = {}) => get(app, `Bearer ${value}`, more)

async function appFor(t: Test, options: Partial<JwtOptions>): Promise<FastifyInstance> {
  const app = await edgeApp([
    { name: 'orders', edge: { jwt: jwtOptions(options) } },
    { name: 'open', edge: {} }
  ])
  t.teardown(() => app.close())
  return app
}

/** A clock that the test advances. */
function fakeClock(t: Test, start = 1_800_000_000_000): { ms: number } {
  const clock = { ms: start }
  const real = Date.now
  Date.now = () => clock.ms
  t.teardown(() => {
    Date.now = real
  })
  return clock
}

t.test('every algorithm verifies with its key', async (t) => {
  for (const alg of ['HS256', 'HS384', 'HS512']) {
    const app = await appFor(t, { secret })
    t.equal((await withToken(app, token(claims(), secret, { alg }))).statusCode, 200, alg)
  }
  const pairs = {
    RS256: keys.rsa, RS384: keys.rsa, RS512: keys.rsa, PS256: keys.rsa, PS384: keys.rsa, PS512: keys.rsa,
    ES256: keys.p256, ES384: keys.p384, ES512: keys.p521, EdDSA: keys.ed25519
  } // biome-ignore format: a table
  for (const [alg, pair] of Object.entries(pairs)) {
    const app = await appFor(t, { publicKey: pem(pair) })
    t.equal((await withToken(app, token(claims(), pair, { alg }))).statusCode, 200, alg)
    const restricted = await appFor(t, { publicKey: pem(pair), algorithms: [alg as 'RS256'] })
    t.equal((await withToken(restricted, token(claims(), pair, { alg }))).statusCode, 200, `${alg} alone`)
  }
})

t.test('the user and the consumer are set, on routes with JWT only', async (t) => {
  const app = await appFor(t, { secret })
  const response = await withToken(app, token(claims({ roles: ['a'] })))
  t.match(response.json(), { user: { sub: 'ann', roles: ['a'] }, consumer: { id: 'ann' }, added: null })
  const nameless = await withToken(app, token(claims({ sub: undefined })))
  t.match(nameless.json(), { user: { exp: Number }, consumer: null })
  const open = await app.inject({ url: '/open', headers: { authorization: 'Bearer nonsense' } })
  t.match(open.json(), { user: null, consumer: null })
})

t.test('a route without remembered tokens verifies each one, independent of other routes', async (t) => {
  const seen: unknown[] = []
  const app = await edgeApp(
    [
      { name: 'orders', edge: { jwt: jwtOptions({ secret }) } },
      { name: 'payments', edge: { jwt: jwtOptions({ secret, rememberTokens: false }) } }
    ],
    {
      before: (fastify) => {
        fastify.addHook('preHandler', async (request) => void seen.push(request.user))
      }
    }
  )
  t.teardown(() => app.close())
  const headers = { authorization: `Bearer ${token(claims())}` }
  for (const url of ['/orders', '/orders', '/payments', '/payments']) await app.inject({ url, headers })
  t.equal(seen[0], seen[1], 'both routes set the same claims')
  t.strictSame(seen[2], seen[0])
  t.not(seen[2], seen[0])
  t.not(seen[2], seen[3])
})

t.test('a token signed with a public key as a secret is refused', async (t) => {
  for (const pair of [keys.rsa, keys.p256, keys.ed25519]) {
    const app = await appFor(t, { publicKey: pem(pair) })
    for (const shared of [pem(pair), pem(pair).trim(), pem(pair).replaceAll('\n', '')]) {
      for (const alg of ['HS256', 'HS384', 'HS512']) {
        const response = await withToken(app, token(claims(), shared, { alg }))
        t.equal(response.statusCode, 401)
        t.equal(code(response), 'JW_TOKEN_INVALID')
      }
    }
  }
})

t.test('the token cannot choose the algorithm', async (t) => {
  const shared = await appFor(t, { secret })
  const rsa = await appFor(t, { publicKey: pem(keys.rsa), algorithms: ['RS256'] })
  const ec = await appFor(t, { publicKey: pem(keys.p256) })
  const bare = token(claims(), '', { alg: 'none' })
  const cases: [string, FastifyInstance, string][] = [
    ['none', shared, bare],
    ['none, public key', rsa, bare],
    [
      'None',
      shared,
      token(claims(), '', { alg: 'none' }).replace(/^[^.]+/, btoa('{"alg":"None"}').replaceAll('=', ''))
    ],
    ['none with a signature', shared, `${bare}AAAA`],
    ['signature truncated', shared, `${token(claims()).split('.').slice(0, 2).join('.')}.`],
    ['RS where HS is due', shared, token(claims(), keys.rsa, { alg: 'RS256' })],
    ['RS384 where RS256 is due', rsa, token(claims(), keys.rsa, { alg: 'RS384' })],
    ['PS256 where RS256 is due', rsa, token(claims(), keys.rsa, { alg: 'PS256' })],
    ['ES384 where ES256 is due', ec, token(claims(), keys.p384, { alg: 'ES384' })],
    ['another RSA key', rsa, token(claims(), keys.otherRsa, { alg: 'RS256' })],
    ['another secret', shared, token(claims(), 'another secret of the same length!!!')],
    [
      'a key brought along',
      rsa,
      token(claims(), keys.otherRsa, { alg: 'RS256', jwk: keys.otherRsa.publicKey.export({ format: 'jwk' }) })
    ],
    ['an unknown critical extension', shared, token(claims(), secret, { alg: 'HS256', crit: ['x'], x: 1 })],
    ['no algorithm', shared, token(claims()).replace(/^[^.]+/, Buffer.from('{"typ":"JWT"}').toString('base64url'))]
  ]
  for (const [name, app, value] of cases) {
    const response = await withToken(app, value)
    t.equal(response.statusCode, 401, name)
    t.equal(code(response), 'JW_TOKEN_INVALID', name)
  }
})

t.test('issuer and audience must match', async (t) => {
  const app = await appFor(t, { secret, issuer: 'https://id.example', audience: ['api', 'api2'] })
  const status = async (more: Record<string, unknown>) =>
    (await withToken(app, token(claims({ iss: 'https://id.example', aud: 'api', ...more })))).statusCode
  t.equal(await status({}), 200)
  t.equal(await status({ aud: ['other', 'api2'] }), 200)
  for (const iss of [undefined, '', 'https://evil.example', 'https://id.example/', ['https://id.example'], null, 7]) {
    t.equal(await status({ iss }), 401, `iss ${JSON.stringify(iss)}`)
  }
  for (const aud of [undefined, '', 'API', [], ['other'], [7], null, { api: true }]) {
    t.equal(await status({ aud }), 401, `aud ${JSON.stringify(aud)}`)
  }
})

t.test('exp, nbf and iat are checked, up to clockSkew', async (t) => {
  const clock = fakeClock(t)
  const now = clock.ms / 1000
  const app = await appFor(t, { secret, clockSkew: 5000 })
  const ask = async (more: object) => {
    const response = await withToken(app, token({ sub: 'ann', exp: now + 60, ...more }))
    return response.statusCode === 200 ? 200 : code(response)
  }
  t.equal(await ask({ exp: now - 5 }), 200)
  t.equal(await ask({ exp: now - 5.001 }), 'JW_TOKEN_EXPIRED')
  t.equal(await ask({ nbf: now + 5 }), 200)
  t.equal(await ask({ nbf: now + 5.001 }), 'JW_TOKEN_INVALID')
  t.equal(await ask({ iat: now + 5 }), 200)
  t.equal(await ask({ iat: now + 5.001 }), 'JW_TOKEN_INVALID')
  for (const wrong of [undefined, null, `${now + 60}`, [now + 60], {}, -1e308]) {
    t.not(await ask({ exp: wrong }), 200, `exp ${JSON.stringify(wrong)}`)
  }
  for (const wrong of [null, `${now}`, true]) {
    t.equal(await ask({ nbf: wrong }), 'JW_TOKEN_INVALID', `nbf ${wrong}`)
    t.equal(await ask({ iat: wrong }), 'JW_TOKEN_INVALID', `iat ${wrong}`)
  }
})

t.test('a remembered token still expires, and a refused one still becomes valid', async (t) => {
  const clock = fakeClock(t)
  const now = clock.ms / 1000
  const app = await appFor(t, { secret, clockSkew: 0 })
  const value = token({ sub: 'ann', nbf: now + 10, exp: now + 60 })
  const ask = async () => (await withToken(app, value)).statusCode
  t.equal(await ask(), 401)
  clock.ms += 10_000
  t.equal(await ask(), 200, 'a refusal is not remembered')
  clock.ms += 50_000
  t.equal(await ask(), 200)
  clock.ms += 1
  const response = await withToken(app, value)
  t.equal(response.statusCode, 401)
  t.equal(code(response), 'JW_TOKEN_EXPIRED')
  t.match(response.headers['www-authenticate'], /error="invalid_token", error_description="The token has expired"$/)
  clock.ms -= 60_000
  t.equal(await ask(), 401, 'a clock that is set back does not make it valid before its time')
})

t.test('tokens are remembered for one configuration only', async (t) => {
  const app = await edgeApp([
    { name: 'orders', edge: { jwt: jwtOptions({ secret }) } },
    { name: 'strict', edge: { jwt: jwtOptions({ secret, audience: 'admin' }) } },
    { name: 'other', edge: { jwt: jwtOptions({ secret: `${secret}!` }) } }
  ])
  t.teardown(() => app.close())
  const headers = { authorization: `Bearer ${token(claims())}` }
  t.equal((await app.inject({ url: '/orders', headers })).statusCode, 200)
  t.equal((await app.inject({ url: '/strict', headers })).statusCode, 401)
  t.equal((await app.inject({ url: '/other', headers })).statusCode, 401)
})

t.test('claims are frozen, since requests may share them', async (t) => {
  const seen = new Set<unknown>()
  const app = await edgeApp([{ name: 'orders', edge: { jwt: jwtOptions({ secret }) } }], {
    before: (fastify) => {
      fastify.addHook('preHandler', async (request) => {
        seen.add(request.user)
        const user = request.user as { roles: string[] }
        t.throws(() => user.roles.push('admin'))
        t.throws(() => Object.assign(user, { sub: 'root' }))
      })
    }
  })
  t.teardown(() => app.close())
  const value = token(claims({ roles: ['user'] }))
  for (let i = 0; i < 2; i++) {
    t.match((await withToken(app, value)).json(), { user: { sub: 'ann', roles: ['user'] } })
  }
  t.equal(seen.size, 1, 'the token is remembered')
})

t.test('without a token, the response is 401 with a challenge that names no error', async (t) => {
  const app = await appFor(t, { secret })
  const good = token(claims())
  for (const value of [
    undefined,
    '',
    'Bearer',
    'Bearer ',
    'Basic YTpi',
    `Token ${good}`,
    good,
    `Bearer\t${good}`,
    `xBearer ${good}`
  ]) {
    const response = await get(app, value)
    t.equal(response.statusCode, 401, `${value?.slice(0, 10)}`)
    t.equal(response.headers['www-authenticate']?.toString().startsWith('Bearer realm="jingwei"'), true)
  }
  const none = await get(app, undefined)
  t.equal(code(none), 'JW_TOKEN_MISSING')
  t.equal(none.headers['www-authenticate'], 'Bearer realm="jingwei"')
  t.equal((await get(app, `bearer ${good}`)).statusCode, 200, 'the scheme is case-insensitive')
})

t.test('a token is taken from the Authorization header and nowhere else', async (t) => {
  const app = await appFor(t, { secret })
  const good = token(claims())
  const response = await app.inject({
    method: 'POST',
    url: `/orders?access_token=${good}&token=${good}`,
    headers: { cookie: `token=${good}`, 'x-authorization': `Bearer ${good}` },
    payload: { access_token: good }
  })
  t.equal(response.statusCode, 401)
})

t.test('malformed tokens of every kind are 401', async (t) => {
  const app = await appFor(t, { secret })
  const b64 = (text: string) => Buffer.from(text).toString('base64url')
  const signed = (payload: string) => token(payload)
  const good = token(claims())
  const [header, body, tail] = good.split('.') as [string, string, string]
  const shapes = [
    '.', '..', '...', 'a', 'a.b', 'a.b.c', 'a.b.c.d', 'a.b.c.d.e', `${good}.`, `.${good}`, `${good}.x`,
    `${header}..${tail}`, `.${body}.${tail}`, `${header}.${body}`, `${header}.${body}.`, `${header}.${body}.${tail}=`,
    `${header}.${body}.${tail}A`, `${header}.${body}.!!!`, `${header} .${body}.${tail}`, `${good} ${good}`, `${good},${good}`,
    `\t${good}`, `${b64('null')}.${body}.${tail}`, `${b64('[]')}.${body}.${tail}`, `${b64('7')}.${body}.${tail}`,
    `${b64('"x"')}.${body}.${tail}`, `${b64('{')}.${body}.${tail}`, `${b64('{}')}.${body}.${tail}`,
    `${b64('{"alg":null}')}.${body}.${tail}`, `${b64('{"alg":["HS256"]}')}.${body}.${tail}`,
    `${b64('{"alg":{"a":1}}')}.${body}.${tail}`, `${b64('{"alg":"__proto__"}')}.${body}.${tail}`,
    `${b64('{"alg":"HS256","crit":"x"}')}.${body}.${tail}`, `${b64('\xff\xfe')}.${body}.${tail}`,
    signed('null'), signed('[]'), signed('7'), signed('"text"'), signed(''), signed('{'), signed('{"exp":1e400}x'),
    signed('{"exp":-1e400}'), signed('{"exp":4102444800,"nbf":1e400}'), signed('{"exp":4102444800,"iat":1e400}'),
    signed('{"exp":{"__proto__":1}}'), signed('\ufeff{}'), '\xe9.\xe9.\xe9', `${'.'.repeat(5000)}`, `${'['.repeat(3000)}`,
    signed('['.repeat(5000))
  ] // biome-ignore format: a table
  for (const shape of shapes) {
    const response = await withToken(app, shape)
    t.equal(response.statusCode, 401, JSON.stringify(shape.slice(0, 60)))
    t.equal(String(code(response)).startsWith('JW_TOKEN_'), true)
    t.match(response.headers['www-authenticate'], /^Bearer realm="jingwei"[\x20-\x7e]*$/)
  }
})

t.test('an oversized token is refused before it is parsed', async (t) => {
  const limit = 600
  const app = await appFor(t, { secret, maxTokenSize: limit })
  const sized = (size: number) => {
    for (let pad = 0; ; pad++) {
      const value = token(claims({ pad: 'x'.repeat(pad) }))
      if (value.length >= size) return value
    }
  }
  const fits = sized(limit - 2)
  t.ok(fits.length <= limit)
  t.equal((await withToken(app, fits)).statusCode, 200)
  t.equal((await withToken(app, sized(limit + 1))).statusCode, 401)
})

t.test('two Authorization headers are refused, as the service would see both', async (t) => {
  const app = await appFor(t, { secret })
  const address = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
  const ask = (lines: string[]) =>
    new Promise<string>((resolve, reject) => {
      const socket = connect(Number(address.port), '127.0.0.1')
      let received = ''
      socket.on('data', (chunk) => {
        received += chunk
      })
      socket.on('end', () => resolve(received))
      socket.on('error', reject)
      socket.end(['GET /orders HTTP/1.1', 'Host: x', 'Connection: close', ...lines, '', ''].join('\r\n'))
    })
  const good = `Authorization: Bearer ${token(claims())}`
  t.match(await ask([good]), /^HTTP\/1.1 200 /)
  t.match(await ask([good, good]), /^HTTP\/1.1 401 /)
  t.match(await ask([good, 'AUTHORIZATION: Bearer forged']), /^HTTP\/1.1 401 /)
  t.match(await ask(['Authorization: Basic YTpi', good]), /^HTTP\/1.1 401 /)
})

t.test('claims are forwarded as headers, encoded if they would be ambiguous', async (t) => {
  const forward = {
    sub: 'x-user-id',
    roles: 'x-roles',
    admin: 'x-admin',
    level: 'x-level',
    org: 'x-org',
    toString: 'x-none'
  }
  const app = await appFor(t, { secret, forward })
  const added = async (more: Record<string, unknown>) => {
    const flat = (await withToken(app, token(claims(more)))).json().added as string[]
    return Object.fromEntries(Array.from({ length: flat.length / 2 }, (_, i) => [flat[2 * i], flat[2 * i + 1]]))
  }
  t.same(await added({ roles: ['a', 'b'], admin: false, level: 3, org: { id: 1 } }), {
    'x-user-id': 'ann', 'x-roles': 'a,b', 'x-admin': 'false', 'x-level': '3', 'x-org': '{"id":1}'
  }) // biome-ignore format: a table
  t.same(await added({ roles: null, sub: 'two words, one' }), { 'x-user-id': 'two words, one' })
  t.same(await added({ sub: 'ann\r\nx-admin: true' }), { 'x-user-id': 'ann%0D%0Ax-admin%3A%20true' })
  t.same(await added({ sub: '\u0000' }), { 'x-user-id': '%00' })
  t.same(await added({ sub: '张' }), { 'x-user-id': '%E5%BC%A0' })
  t.same(await added({ sub: '%E5%BC%A0' }), { 'x-user-id': '%25E5%25BC%25A0' }, 'another caller than the one above')
  t.same(await added({ roles: ['x%2Cadmin', 'x,admin'] }), { 'x-user-id': 'ann', 'x-roles': 'x%252Cadmin,x%2Cadmin' })
  for (const sub of ['%', '100%', '50%off', '%zz%4']) t.same(await added({ sub }), { 'x-user-id': sub })
  t.same(await added({ sub: '\u0085' }), { 'x-user-id': '%C2%85' })
  t.same(await added({ sub: ' admin' }), { 'x-user-id': '%20admin' }, 'leading and trailing spaces would be lost')
  t.same(await added({ sub: '\ud800' }), { 'x-user-id': '%EF%BF%BD' }, 'a lone surrogate is replaced')
  t.same(await added({ roles: ['user', 'x,admin', 'a\nb'] }), { 'x-user-id': 'ann', 'x-roles': 'user,x%2Cadmin,a%0Ab' })
})

t.test('nested claims, and claims whose names contain dots', async (t) => {
  const forward = {
    'realm_access.roles': 'x-roles',
    'resource_access.my.app.roles': 'x-app-roles',
    'https://example.com/tenant': 'x-tenant',
    'https://example.com/plan.name': 'x-plan',
    'sub.length': 'x-length',
    'constructor.name': 'x-constructor',
    '__proto__.polluted': 'x-proto',
    'realm_access.': 'x-empty',
    '.realm_access': 'x-leading',
    'realm_access.roles.0': 'x-first'
  }
  const app = await appFor(t, { secret, forward })
  const added = async (more: Record<string, unknown>) => {
    const flat = (await withToken(app, token(claims(more)))).json<{ added: string[] | null }>().added ?? []
    return Object.fromEntries(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]]] : [])))
  }
  t.strictSame(
    await added({
      realm_access: { roles: ['admin', 'user'] },
      resource_access: { 'my.app': { roles: ['r'] } },
      'https://example.com/tenant': 'acme',
      'https://example.com/plan': { name: 'gold' }
    }),
    { 'x-roles': 'admin,user', 'x-app-roles': 'r', 'x-tenant': 'acme', 'x-plan': 'gold', 'x-first': 'admin' }
  )
  t.strictSame(await added({ 'realm_access.roles': 'literal', realm_access: { roles: ['nested'] } }), {
    'x-roles': 'literal',
    'x-first': 'nested'
  })
  t.strictSame(await added({ realm_access: 'text', resource_access: null }), {})
  t.strictSame(await added({ realm_access: { roles: null } }), {})
})

t.test('claim headers of a client are dropped, with or without a claim', async (t) => {
  const app = await appFor(t, { secret, forward: { sub: 'X-User-Id', roles: 'x-roles' } })
  const spoofed = {
    'X-User-ID': 'root',
    x_user_id: 'root',
    'x-user_id': 'root',
    'X-ROLES': 'admin',
    'x-user-idd': 'kept'
  }
  const response = await withToken(app, token(claims({ sub: undefined })), spoofed)
  t.equal(response.json().added, null)
  const passed = (response.json().passed as string[]).filter((name) => name.startsWith('x'))
  t.same(passed, ['x-user-idd'])
})

t.test('claims cannot be forwarded in connection headers', async (t) => {
  for (const header of ['Host', 'content_length', 'transfer-encoding']) {
    await t.rejects(edgeApp([{ name: 'orders', edge: { jwt: jwtOptions({ secret, forward: { sub: header } }) } }]))
  }
})

t.test('unsuitable keys stop the start', async (t) => {
  const refused: [string, Partial<JwtOptions>][] = [
    ['no key', {}],
    ['two keys', { secret, publicKey: pem(keys.rsa) }],
    ['a public key as secret', { secret: pem(keys.rsa) }],
    ['a private key', { publicKey: keys.rsa.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString() }],
    ['1024 bits', { publicKey: pem(keys.smallRsa) }],
    ['secp256k1', { publicKey: pem(keys.k256) }],
    ['HS with a public key', { publicKey: pem(keys.rsa), algorithms: ['RS256', 'HS256'] }],
    ['HS with a key set', { jwks: 'http://127.0.0.1:1/', algorithms: ['HS256'] }],
    ['RS with a secret', { secret, algorithms: ['RS256'] }],
    ['ES256 with P-384', { publicKey: pem(keys.p384), algorithms: ['ES256'] }],
    ['no such file', { publicKey: './missing.pem' }]
  ]
  for (const [name, options] of refused) {
    await t.rejects(edgeApp([{ name: 'orders', edge: { jwt: jwtOptions(options) } }]), name)
  }
})

t.test('a public key is read from a file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'jwt-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  writeFileSync(join(folder, 'key.pem'), pem(keys.p256))
  const app = await appFor(t, { publicKey: join(folder, 'key.pem') })
  t.equal((await withToken(app, token(claims(), keys.p256, { alg: 'ES256' }))).statusCode, 200)
})

t.test('routes with different issuers or keys have distinct consumers', async (t) => {
  const other = 'another secret of the same length!!!'
  const name = async (app: FastifyInstance, url: string, more: Record<string, unknown>, key = secret) => {
    const authorization = `Bearer ${token(claims(more), key)}`
    return (await app.inject({ url, headers: { authorization } })).json<{ consumer: { id: string } }>().consumer.id
  }
  const byIssuer = await edgeApp([
    { name: 'one', edge: { jwt: jwtOptions({ secret, issuer: 'a' }) } },
    { name: 'two', edge: { jwt: jwtOptions({ secret, issuer: 'b' }) } }
  ])
  t.teardown(() => byIssuer.close())
  t.equal(await name(byIssuer, '/one', { iss: 'a' }), 'a|ann')
  t.equal(await name(byIssuer, '/two', { iss: 'b' }), 'b|ann')
  const byKey = await edgeApp([
    { name: 'one', edge: { jwt: jwtOptions({ secret }) } },
    { name: 'too', edge: { jwt: jwtOptions({ secret, clockSkew: 0 }) } },
    { name: 'two', edge: { jwt: jwtOptions({ secret: other }) } }
  ])
  t.teardown(() => byKey.close())
  t.equal(await name(byKey, '/one', {}), 'one |ann')
  t.equal(await name(byKey, '/too', {}), 'one |ann')
  t.equal(await name(byKey, '/two', { iss: 'x' }, other), 'two x|ann')
  const same = await edgeApp([
    { name: 'one', edge: { jwt: jwtOptions({ secret, issuer: 'a' }) } },
    { name: 'two', edge: { jwt: jwtOptions({ secret: other, issuer: ['a'] }) } }
  ])
  t.teardown(() => same.close())
  t.equal(await name(same, '/one', { iss: 'a' }), 'ann')
})
