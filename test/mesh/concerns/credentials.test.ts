// slow: takes about 8 s
/** Credentials toward services: headers, tokens and their lifetimes, failures, refused tokens. */
import { generateKeyPairSync } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { createLocalJWKSet, exportJWK, jwtVerify } from 'jose'
import type { Test } from 'tap'
import t from 'tap'
import { secretTiming } from '../../../plugins/mesh/concerns/credentials/secret.ts'
import type { Logger } from '../../../plugins/mesh/core/types.ts'
import { Mesh } from '../../../plugins/mesh/mesh.ts'
import { Stores } from '../../../plugins/stores.ts'
import { eventually } from '../../helpers/eventually.ts'
import { configOf } from '../../helpers/gateway.ts'
import { meshOf, meterStub, Recorder } from '../../helpers/mesh/mesh.ts'
import { refused, silent, upstream } from '../../helpers/mesh/servers.ts'
import type { TokenRequest } from '../../helpers/mesh/token-server.ts'
import { giveToken, tokenServer } from '../../helpers/mesh/token-server.ts'

const origin = 'http://orders.mesh'

/** A mesh over `orders`, with these credentials and the clock of the test. */
async function withCredentials(
  t: Test,
  credentials: object,
  listener?: (request: IncomingMessage, response: ServerResponse) => void,
  { mesh: more = {}, services = {} }: { mesh?: object; services?: object } = {}
) {
  const orders = await upstream(t, 'orders', listener)
  const at = { now: 1_000_000 }
  const stub = meterStub()
  const lines: Record<string, unknown>[] = []
  const line = (level: string) => (fields: object, message: string) => void lines.push({ level, message, ...fields })
  const log: Logger = { info: line('info'), warn: line('warn'), error: line('error') }
  const config = configOf({
    services: { orders: { instances: [orders.url], mesh: { retry: false, ...more, credentials } }, ...services },
    routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }]
  })
  const mesh = meshOf(t, Object.values(config.services), { now: () => at.now, meter: stub.meter, log })
  const ask = async (headers: Record<string, string> = {}, path = '/') => {
    const { statusCode, body } = await mesh.request({ origin, path, method: 'GET', headers })
    await body.dump()
    return statusCode
  }
  const sent = () => orders.requests.map(({ headers }) => headers.authorization)
  const said = () => lines.filter(({ message }) => /token|credentials/.test(String(message)))
  const status = () => mesh.service('orders').status().concerns.credentials as Record<string, unknown>
  return { mesh, at, ask, sent, said, lines, status, orders, ...stub }
}

const oauth2 = (url: string, more: object = {}) => ({
  oauth2: { url, clientId: 'gate way', clientSecret: 's3cr:t', ...more }
})

t.test('static credentials replace those of the caller, in any spelling', async (t) => {
  const cases: [object, string, string][] = [
    [{ bearer: { token: 'abc' } }, 'authorization', 'Bearer abc'],
    [
      { basic: { username: 'ann', password: 'p:ß' } },
      'authorization',
      `Basic ${Buffer.from('ann:p:ß').toString('base64')}`
    ],
    [{ header: { name: 'X-Api-Key', secret: 'k e y' } }, 'x-api-key', 'k e y']
  ]
  for (const [credentials, name, value] of cases) {
    const { mesh, orders } = await withCredentials(t, credentials)
    const shapes = [
      { Authorization: 'Bearer stolen', 'X-API-Key': 'stolen', accept: 'a/b' },
      ['AUTHORIZATION', 'Bearer stolen', 'x-api-key', 'stolen', 'X-Api-KEY', 'again', 'accept', 'a/b'],
      new Map([['authorization', 'Bearer stolen'], ['x-api-key', 'stolen'], ['accept', 'a/b']]) // biome-ignore format: a list
    ]
    for (const headers of shapes) {
      const { body } = await mesh.request({ origin, path: '/', method: 'GET', headers: headers as never })
      await body.dump()
      const { headers: seen, rawHeaders } = orders.requests.at(-1)!
      t.equal(seen[name], value)
      t.equal(rawHeaders.filter((each) => each.toLowerCase() === name).length, 1)
      t.equal(seen.accept, 'a/b', 'other headers are kept')
      const other = name === 'authorization' ? 'x-api-key' : 'authorization'
      t.match(seen[other], /stolen/, 'another header is not touched')
    }
  }
})

t.test('a token is requested once for all calls that wait, and reused', async (t) => {
  const held: ServerResponse[] = []
  const tokens = await tokenServer(t, (response) => void held.push(response))
  const { ask, sent, status, counts, gauges } = await withCredentials(
    t,
    oauth2(`${tokens.url}/oauth/token?a=1`, {
      scopes: ['read', 'write'],
      audience: 'https://orders',
      parameters: { resource: 'a b&c' }
    })
  )
  const calls = Array.from({ length: 20 }, () => ask({ authorization: 'Basic of-the-client' }))
  await eventually(() => held.length === 1 && status().waiting === 20)
  giveToken(held[0]!, 'abc')
  t.strictSame(await Promise.all(calls), calls.map(() => 200)) // biome-ignore format: short
  t.equal(await ask(), 200)
  t.strictSame(new Set(sent()), new Set(['Bearer abc']))
  t.equal(tokens.requests.length, 1)
  const [request] = tokens.requests as [TokenRequest]
  t.equal(request.path, 'POST /oauth/token?a=1')
  t.match(request.headers['content-type'], 'application/x-www-form-urlencoded')
  const userinfo = Buffer.from(String(request.headers.authorization).replace('Basic ', ''), 'base64').toString()
  t.equal(userinfo, 'gate+way:s3cr%3At', 'RFC 6749, 2.3.1')
  t.strictSame(request.form, {
    grant_type: 'client_credentials',
    scope: 'read write',
    audience: 'https://orders',
    resource: 'a b&c'
  })
  t.equal(counts['jingwei_mesh_token_requests_total{orders,success}'], 1)
  t.strictSame(gauges.jingwei_mesh_token_valid_seconds!(), [[{ service: 'orders' }, 3600]])
  t.match(status(), { kind: 'oauth2', endpoint: `${tokens.url}/oauth/token`, waiting: 0, error: null })
})

t.test('client_secret_post, and a secret in a file that is read for each token', async (t) => {
  const tokens = await tokenServer(t, (response, count) => giveToken(response, `t${count}`, { expires_in: 10 }))
  const file = join(t.testdir({ secret: 'first\n' }), 'secret')
  const { ask, at, sent } = await withCredentials(t, {
    oauth2: { url: tokens.url, clientId: 'a', clientSecretFile: file, clientAuth: 'post' }
  })
  await ask()
  writeFileSync(file, 'second')
  at.now += 10_000
  await ask()
  t.strictSame(
    tokens.requests.map(({ form, headers }) => [form.client_id, form.client_secret, headers.authorization]),
    [
      ['a', 'first', undefined],
      ['a', 'second', undefined]
    ]
  )
  t.strictSame(sent(), ['Bearer t1', 'Bearer t2'])
})

for (const [kind, algorithm, alg] of [
  ['rsa', undefined, 'RS256'],
  ['rsa', 'PS384', 'PS384'],
  ['ec', undefined, 'ES256']
] as const) {
  t.test(`private_key_jwt: ${alg}`, async (t) => {
    const tokens = await tokenServer(t)
    const { privateKey, publicKey } =
      kind === 'rsa'
        ? generateKeyPairSync('rsa', { modulusLength: 2048 })
        : generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const pem = privateKey.export({ type: kind === 'rsa' ? 'pkcs1' : 'sec1', format: 'pem' } as never) as string
    const dir = t.testdir({ 'key.pem': pem })
    const { ask } = await withCredentials(t, {
      oauth2: {
        url: tokens.url,
        clientId: 'a',
        privateKeyFile: join(dir, 'key.pem'),
        keyId: 'k1',
        ...(algorithm && { algorithm })
      }
    })
    t.equal(await ask(), 200)
    const { form, headers } = tokens.requests[0]!
    t.equal(headers.authorization, undefined)
    t.match(form, { client_id: 'a', client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer' })
    const keys = createLocalJWKSet({ keys: [{ ...(await exportJWK(publicKey)), kid: 'k1' }] })
    const { payload, protectedHeader } = await jwtVerify(form.client_assertion!, keys, { audience: tokens.url })
    t.match(protectedHeader, { alg, kid: 'k1' })
    t.match(payload, { iss: 'a', sub: 'a' })
    t.ok(payload.exp! - Date.now() / 1000 < 300)
  })
}

t.test('the token endpoint may be a service of the mesh', async (t) => {
  const tokens = await tokenServer(t)
  const { ask, sent, status } = await withCredentials(
    t,
    { oauth2: { service: 'identity', path: '/connect/token', clientId: 'a', clientSecret: 'b' } },
    undefined,
    { services: { identity: { instances: [tokens.url], basePath: '/realm' } } }
  )
  t.equal(await ask({ authorization: 'Bearer of-the-client', cookie: 'of=client' }), 200)
  t.strictSame(sent(), ['Bearer token-1'])
  t.equal(tokens.requests[0]!.path, 'POST /realm/connect/token')
  t.equal(tokens.requests[0]!.headers.cookie, undefined)
  t.match(status(), { endpoint: 'identity/connect/token' })
})

t.test('a token is replaced ahead of its expiry, while calls use it', async (t) => {
  const held: ServerResponse[] = []
  const tokens = await tokenServer(t, (response, count) => {
    if (count === 1) giveToken(response, 'one', { expires_in: 100 })
    else held.push(response)
  })
  const { ask, at, sent, status } = await withCredentials(t, oauth2(tokens.url))
  await ask()
  at.now += 69_999
  await ask()
  t.equal(tokens.requests.length, 1)
  at.now += 1
  await ask()
  await ask()
  await eventually(() => held.length === 1, 'one request in the background')
  t.strictSame(new Set(sent()), new Set(['Bearer one']), 'no call waits')
  giveToken(held[0]!, 'two', { expires_in: 100 })
  await eventually(() => status().validMs === 100_000)
  await ask()
  t.equal(sent().at(-1), 'Bearer two')
})

t.test('lifetimes: without expires_in, as text, of zero, longer than maxAge', async (t) => {
  const cases: [object, number][] = [
    [{}, 3_600_000],
    [{ expires_in: '120' }, 120_000],
    [{ expires_in: 0 }, 1000],
    [{ expires_in: 1e9 }, 3_600_000]
  ]
  for (const [more, lifetime] of cases) {
    const tokens = await tokenServer(t, (response, count) => giveToken(response, `t${count}`, more))
    const { ask, at, sent } = await withCredentials(t, oauth2(tokens.url, { refreshBefore: '1ms' }))
    await ask()
    at.now += lifetime - 2
    await ask()
    t.equal(sent().at(-1), 'Bearer t1', JSON.stringify(more))
    at.now += 2
    await ask()
    t.equal(sent().at(-1), 'Bearer t2', JSON.stringify(more))
  }
})

t.test('failures: calls get 503 at once until the next attempt, with growing pauses', async (t) => {
  const tokens = await tokenServer(t, (response, count) => {
    if (count === 4) return giveToken(response, 'late')
    response.writeHead(503).end('secret text of the server')
  })
  const { ask, at, said, sent, orders, counts, status } = await withCredentials(t, oauth2(tokens.url))
  const failed = { code: 'JW_CREDENTIALS_UNAVAILABLE', reason: 'credentials_unavailable' }
  await t.rejects(Promise.all([ask(), ask()]), { ...failed, retryAfterMs: 1000 })
  for (const pause of [1000, 2000]) {
    at.now += pause - 1
    await t.rejects(ask(), { ...failed, retryAfterMs: 1 })
    at.now++
    await t.rejects(ask(), { ...failed, retryAfterMs: 2 * pause })
  }
  t.equal(tokens.requests.length, 3)
  t.equal(orders.requests.length, 0, 'nothing is sent without credentials')
  t.match(status(), { error: 'the endpoint responds with 503' })
  at.now += 4000
  t.equal(await ask(), 200)
  t.strictSame(sent(), ['Bearer late'])
  t.equal(counts['jingwei_mesh_token_requests_total{orders,failure}'], 3)
  t.equal(counts['jingwei_mesh_credentials_missing_total{orders}'], 6)
  t.strictSame(
    said().map(({ level, message }) => [level, message]),
    [
      ['warn', 'no token for orders: the endpoint responds with 503; calls fail until there is one'],
      ['info', 'the token endpoint gives tokens for orders again']
    ]
  )
  t.notMatch(JSON.stringify(said()), /s3cr|secret text|late/)
})

t.test('a token endpoint that repeats what it was sent brings no secret into the log and the status', async (t) => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const privateKeyFile = join(t.testdir({ 'key.pem': privateKey.export({ type: 'pkcs8', format: 'pem' }) }), 'key.pem')
  const clientSecret = 'hunter2 & more+'
  for (const more of [
    { clientSecret },
    { clientSecret, clientAuth: 'post' },
    { clientSecret: undefined, privateKeyFile }
  ]) {
    const tokens = await tokenServer(t, (response, _count, { headers, form }) => {
      const [, encoded = ''] = headers.authorization?.split(' ') ?? []
      const login = Buffer.from(encoded, 'base64').toString()
      const all = [headers.authorization, encoded, login, clientSecret, form.client_secret, form.client_assertion]
      const error_description = all.filter(Boolean).join(' | ')
      response.writeHead(400, { 'content-type': 'application/json' })
      response.end(JSON.stringify({ error: 'invalid_client', error_description }))
    })
    const { ask, said, lines, status } = await withCredentials(t, oauth2(tokens.url, more))
    await t.rejects(ask(), { code: 'JW_CREDENTIALS_UNAVAILABLE', reason: 'credentials_refused' })
    const text = JSON.stringify([lines, status(), said()], (_key, value) =>
      value instanceof Error ? `${value.stack} ${String(value.cause)}` : value
    )
    const [{ headers, form }] = tokens.requests as [TokenRequest]
    const secrets = [headers.authorization?.split(' ')[1], form.client_assertion, more.clientSecret && 'hunter2']
    for (const secret of secrets) if (secret) t.notOk(text.includes(secret.slice(0, 30)), `${secret} in ${text}`)
    t.match(text, /invalid_client \(.*\*\*\*/)
  }
})

t.test('responses of a token endpoint without a valid token', async (t) => {
  const json = { 'content-type': 'application/json' }
  const cases: [what: string, respond: (response: ServerResponse) => void, reason: string, text: RegExp][] = [
    ['refused', (r) => r.writeHead(401, json).end('{"error":"invalid_client","error_description":"no\\nsuch"}'), 'credentials_refused', /401: invalid_client \(no such\); check clientId/],
    ['challenged', (r) => r.writeHead(401, { 'www-authenticate': 'Basic realm="x"' }).end(), 'credentials_refused', /401; check/],
    ['invalid scope', (r) => r.writeHead(400, json).end('{"error":"invalid_scope"}'), 'credentials_refused', /invalid_scope/],
    ['redirect', (r) => r.writeHead(302, { location: '/other' }).end(), 'credentials_unavailable', /302/],
    ['no JSON', (r) => r.writeHead(200, json).end('access_token=abc'), 'credentials_malformed', /JSON/],
    ['HTML', (r) => r.writeHead(200, { 'content-type': 'text/html' }).end('<p>abc</p>'), 'credentials_malformed', /token/],
    ['no token', (r) => r.writeHead(200, json).end('{"token_type":"Bearer"}'), 'credentials_malformed', /access_token/],
    ['a list as token', (r) => r.writeHead(200, json).end('{"token_type":"Bearer","access_token":["abc"]}'), 'credentials_malformed', /access_token/],
    ['another type', (r) => giveToken(r, 'abc', { token_type: 'mac' }), 'credentials_malformed', /token_type/],
    ['a line break', (r) => giveToken(r, 'abc\r\nx-admin: 1'), 'credentials_malformed', /characters/],
    ['a blank', (r) => giveToken(r, 'abc def'), 'credentials_malformed', /characters/],
    ['a long token', (r) => giveToken(r, 'abc'.repeat(6000)), 'credentials_malformed', /16384/],
    ['a large response', (r) => giveToken(r, 'abc', { pad: 'x'.repeat(70_000) }), 'credentials_unavailable', /65536/],
    ['reset', (r) => void r.socket!.resetAndDestroy(), 'credentials_unavailable', /./],
    ['cut', (r) => void r.writeHead(200, { ...json, 'content-length': 50 }).write('{"access_token":"abc"', () => r.destroy()), 'credentials_unavailable', /./]
  ] // biome-ignore format: a table
  for (const [what, respond, reason, text] of cases) {
    const tokens = await tokenServer(t, respond)
    for (const options of [
      oauth2(tokens.url),
      { oauth2: { service: 'identity', clientId: 'a', clientSecret: 's3cr:t' } }
    ]) {
      const services = { identity: { instances: [tokens.url] } }
      const { ask, said, orders, lines } = await withCredentials(t, options, undefined, { services })
      await t.rejects(ask(), { code: 'JW_CREDENTIALS_UNAVAILABLE', reason }, what)
      t.match(said()[0]!.message, text, what)
      t.notMatch(
        JSON.stringify(lines, (_key, value) => (value instanceof Error ? `${value.stack} ${value.cause}` : value)),
        /abc|s3cr/,
        what
      )
      t.equal(orders.requests.length, 0, what)
    }
  }
})

t.test('a token endpoint that does not respond, or refuses the connection', async (t) => {
  for (const url of [(await silent(t)).url, await refused()]) {
    for (const through of [false, true]) {
      const target = through ? { service: 'identity' } : { url }
      const { ask, status } = await withCredentials(
        t,
        { oauth2: { ...target, clientId: 'a', clientSecret: 'b', timeout: '100ms' } },
        undefined,
        { services: { identity: { instances: [url] } } }
      )
      const calls = [ask(), ask()]
      for (const call of calls)
        await t.rejects(call, { code: 'JW_CREDENTIALS_UNAVAILABLE', reason: 'credentials_unavailable' })
      t.match(status().error, /0.1 s|refused/i)
    }
  }
})

t.test('while a token is valid, failures of its renewal are not seen by calls', async (t) => {
  const tokens = await tokenServer(t, (response, count) => {
    if (count === 1) giveToken(response, 'one', { expires_in: 100 })
    else response.writeHead(500).end()
  })
  const { ask, at, said, status } = await withCredentials(t, oauth2(tokens.url))
  await ask()
  at.now += 80_000
  t.equal(await ask(), 200)
  await eventually(() => status().error !== null)
  t.equal(await ask(), 200)
  t.match(said()[0]!.message, /the current token stays in use until it expires/)
  t.equal(tokens.requests.length, 2, 'a pause between attempts')
  at.now += 19_000
  t.equal(await ask(), 200)
  await eventually(() => tokens.requests.length === 3)
  at.now += 1000
  await t.rejects(ask(), { code: 'JW_CREDENTIALS_UNAVAILABLE' })
})

/** Accepts these tokens only. */
const accepting = (accepted: Set<string>) => (request: IncomingMessage, response: ServerResponse) => {
  const body: Buffer[] = []
  request.on('data', (chunk) => body.push(chunk))
  request.on('end', () => {
    const token = String(request.headers.authorization).replace('Bearer ', '')
    response.statusCode = accepted.has(token) ? 200 : 401
    if (response.statusCode === 401) response.setHeader('www-authenticate', 'Bearer error="invalid_token"')
    response.end(accepted.has(token) ? Buffer.concat(body) : 'refused')
  })
}

t.test('a token that the service refuses is replaced, and the call sent once more', async (t) => {
  const tokens = await tokenServer(t)
  const accepted = new Set(['token-1'])
  const { mesh, ask, at, sent, counts } = await withCredentials(t, oauth2(tokens.url), accepting(accepted))
  t.equal(await ask(), 200)
  at.now += 10_000
  accepted.clear()
  accepted.add('token-2')
  const bodies: [string, () => string | Readable][] = [
    ['text', () => 'hello'],
    ['stream', () => Readable.from([Buffer.from('hel'), Buffer.from('lo')])]
  ]
  let next = 2
  for (const [what, body] of bodies) {
    const response = await mesh.request({ origin, path: '/', method: 'POST', body: body() })
    t.equal(response.statusCode, 200, what)
    t.equal(await response.body.text(), 'hello', 'the body is sent again')
    t.strictSame(sent().slice(-2), [`Bearer token-${next - 1}`, `Bearer token-${next}`])
    accepted.clear()
    accepted.add(`token-${++next}`)
    at.now += 10_000
  }
  t.strictSame(await Promise.all([ask(), ask(), ask()]), [200, 200, 200], 'one new token for all')
  t.equal(tokens.requests.length, 4)
  t.ok(counts['jingwei_mesh_credentials_refused_total{orders}']! >= 3)
})

t.test('a 401 that may be the answer to what the client sent', async (t) => {
  const cases: [challenge: string | string[] | null, method: 'GET' | 'POST' | 'PUT', repeated: boolean, replaced: boolean][] = [
    [null, 'GET', true, true],
    [null, 'PUT', true, true],
    [null, 'POST', false, true],
    ['Basic realm="users"', 'GET', false, false],
    ['Basic realm="bearer-of-news"', 'POST', false, false],
    ['Basic realm="of news, Bearer of \\" tidings, bearer"', 'POST', false, false],
    ['Basic realm="users", Bearer', 'POST', true, true],
    [`${'"\\'.repeat(10_000)}, Bearer`, 'POST', false, false],
    [['Basic realm="users"', 'bearer'], 'POST', true, true]
  ] // biome-ignore format: a table
  for (const [challenge, method, repeated, replaced] of cases) {
    const tokens = await tokenServer(t)
    let refuses = false
    const { mesh, ask, at, orders } = await withCredentials(t, oauth2(tokens.url), (_request, response) => {
      if (refuses && challenge !== null) response.setHeader('www-authenticate', challenge)
      response.writeHead(refuses ? 401 : 200).end()
    })
    await ask()
    at.now += 10_000
    refuses = true
    const { statusCode, body } = await mesh.request({ origin, path: '/login', method })
    await body.dump()
    t.equal(statusCode, 401)
    t.equal(orders.requests.length, repeated ? 3 : 2, `${challenge} ${method}`)
    await ask()
    t.equal(tokens.requests.length, replaced ? 2 : 1, `${challenge} ${method}`)
  }
})

t.test('a token that is new is not replaced: the 401 goes to the caller', async (t) => {
  const tokens = await tokenServer(t)
  const { mesh, ask, at, said } = await withCredentials(t, oauth2(tokens.url), accepting(new Set()))
  for (let i = 0; i < 5; i++) {
    const { statusCode, body } = await mesh.request({ origin, path: '/', method: 'GET' })
    t.equal(statusCode, 401)
    t.equal(await body.text(), 'refused')
  }
  t.equal(tokens.requests.length, 1)
  t.match(said(), [{ level: 'warn', message: /orders refuses a new token with 401/ }])
  t.equal(said().length, 1)
  at.now += 10_000
  t.equal(await ask(), 401)
  t.equal(await ask(), 401)
  t.equal(tokens.requests.length, 2, 'at most one token in 10 s')
})

t.test(
  'a body that cannot be sent again: the 401 goes to the caller, and the next call has another token',
  async (t) => {
    const tokens = await tokenServer(t)
    const accepted = new Set(['token-1'])
    const { mesh, ask, at, sent } = await withCredentials(t, oauth2(tokens.url), accepting(accepted))
    await ask()
    at.now += 10_000
    accepted.clear()
    accepted.add('token-2')
    const large = Readable.from(Array.from({ length: 40 }, () => Buffer.alloc(16_384)))
    const { statusCode, body } = await mesh.request({ origin, path: '/', method: 'POST', body: large })
    t.equal(statusCode, 401)
    t.equal(await body.text(), 'refused')
    t.equal(await ask(), 200)
    t.strictSame(sent(), ['Bearer token-1', 'Bearer token-1', 'Bearer token-2'])
  }
)

t.test('a caller that leaves while it waits for a token leaves no trace', async (t) => {
  const held: ServerResponse[] = []
  const tokens = await tokenServer(t, (response) => void held.push(response))
  const { mesh, status, orders, ask } = await withCredentials(t, oauth2(tokens.url), undefined, {
    mesh: { circuitBreaker: { consecutiveFailures: 1 }, timeout: '5s' }
  })
  const recorder = new Recorder()
  mesh.dispatch({ origin, path: '/', method: 'GET' }, recorder)
  await eventually(() => held.length === 1 && status().waiting === 1)
  const other = ask()
  await eventually(() => status().waiting === 2)
  recorder.controller.abort(new Error('gone'))
  await recorder.done
  t.equal(recorder.error!.message, 'gone')
  t.equal(status().waiting, 1)
  giveToken(held[0]!, 'abc')
  t.equal(await other, 200)
  t.equal(orders.requests.length, 1)
  t.match(mesh.service('orders').status(), {
    active: 0,
    concerns: { 'circuit-breaker': { state: 'closed', inFlight: 0 } }
  })
})

t.test('the timeout of the call limits the wait for a token, and no failure counts against the service', async (t) => {
  const { url } = await silent(t)
  const { ask, mesh, status } = await withCredentials(t, oauth2(url, { timeout: '1m' }), undefined, {
    mesh: { circuitBreaker: { consecutiveFailures: 1 }, timeout: '50ms' }
  })
  await t.rejects(ask(), { code: 'JW_CALL_TIMEOUT' })
  t.equal(status().waiting, 0)
  t.match(mesh.service('orders').status().concerns['circuit-breaker'], { state: 'closed', inFlight: 0 })
})

t.test('at most 1,024 calls wait for a token', async (t) => {
  const held: ServerResponse[] = []
  const tokens = await tokenServer(t, (response) => void held.push(response))
  const { mesh, status, ask } = await withCredentials(t, oauth2(tokens.url))
  const recorders = Array.from({ length: 1024 }, () => new Recorder())
  for (const recorder of recorders) mesh.dispatch({ origin, path: '/', method: 'GET' }, recorder)
  t.equal(status().waiting, 1024)
  await t.rejects(ask(), { code: 'JW_OVERLOADED' })
  await eventually(() => held.length === 1)
  giveToken(held[0]!, 'abc')
  await Promise.all(recorders.map(({ done }) => done))
  t.ok(recorders.every((recorder) => recorder.status === 200))
})

t.test('the credentials of a service go to no fallback and no shadow', async (t) => {
  const [shadow, backup] = [await upstream(t, 'shadow'), await upstream(t, 'backup')]
  const { ask, sent } = await withCredentials(
    t,
    { bearer: { token: 'secret' } },
    (_request, response) => response.writeHead(500).end(),
    {
      mesh: { mirror: { service: 'shadow' }, fallback: [{ service: 'backup', on: ['5xx'] }] },
      services: {
        shadow: { instances: [shadow.url], mesh: { credentials: { bearer: { token: 'of-shadow' } } } },
        backup: { instances: [backup.url] }
      }
    }
  )
  t.equal(await ask({ authorization: 'of-the-client' }), 200)
  t.strictSame(sent(), ['Bearer secret'])
  await eventually(() => shadow.requests.length === 1)
  t.equal(shadow.requests[0]!.headers.authorization, 'Bearer of-shadow')
  t.equal(backup.requests[0]!.headers.authorization, 'of-the-client')
})

t.test('a secret in a file is read again when it changes; a broken file changes nothing', async (t) => {
  const { interval } = secretTiming
  secretTiming.interval = 20
  t.teardown(() => Object.assign(secretTiming, { interval }))
  const dir = t.testdir({ token: 'one\n' })
  const file = join(dir, 'token')
  const replace = (text: string) => {
    writeFileSync(`${file}.new`, text)
    renameSync(`${file}.new`, file)
  }
  const { ask, sent, said } = await withCredentials(t, { bearer: { tokenFile: file } })
  await ask()
  replace('two')
  await eventually(() => said().length === 1)
  await ask()
  replace('th\u0000ree')
  await eventually(() => said().length === 2)
  await ask()
  replace('four')
  await eventually(() => said().length === 3)
  await ask()
  t.strictSame(sent(), ['Bearer one', 'Bearer two', 'Bearer two', 'Bearer four'])
  t.match(said()[1], { level: 'warn', message: /has characters that a header cannot have; the last ones stay in use/ })
  t.notMatch(JSON.stringify(said()), /two|th.*ree|four/)
})

t.test('a mesh that closes: waiting calls get their token, or end with the mesh', async (t) => {
  for (const through of [false, true]) {
    const held: ServerResponse[] = []
    const tokens = await tokenServer(t, (response) => void held.push(response))
    const target = through ? { service: 'identity' } : { url: tokens.url }
    const world = async () =>
      withCredentials(t, { oauth2: { ...target, clientId: 'a', clientSecret: 'b', timeout: '20s' } }, undefined, {
        services: { identity: { instances: [tokens.url] } }
      })
    const graceful = await world()
    const served = graceful.ask()
    await eventually(() => held.length === 1)
    const closed = graceful.mesh.close()
    giveToken(held[0]!, 'abc')
    t.equal(await served, 200, 'within the grace')
    await closed

    const abrupt = await world()
    const failed = [abrupt.ask(), abrupt.ask()]
    await eventually(() => held.length === 2)
    let isAborted = false
    held[1]!.once('close', () => {
      isAborted = !held[1]!.writableFinished
    })
    await Promise.all([abrupt.mesh.destroy(), ...failed.map((call) => t.rejects(call, { code: 'JW_MESH_CLOSED' }))])
    await eventually(() => isAborted, 'the request for the token is aborted')
    t.equal(tokens.requests.length, 2, 'no further request')
  }
})

t.test('a reload keeps the token', async (t) => {
  const tokens = await tokenServer(t)
  const orders = await upstream(t, 'orders')
  const log = { info() {}, warn() {}, error() {} }
  const stores = new Stores()
  const start = async (more: object) => {
    const claims = stores.open(log)
    const { services } = configOf({
      services: { orders: { instances: [orders.url], mesh: { credentials: oauth2(tokens.url) } } },
      routes: [{ name: 'orders', match: { path: '/' }, service: 'orders' }],
      ...more
    })
    const mesh = await Mesh.create({ services }, { log, claims })
    await mesh.startInSlices()
    const ask = async () => (await mesh.request({ origin, path: '/', method: 'GET' })).body.text()
    const retire = async () => {
      await mesh.shutdown()
      await claims.release()
    }
    return { ask, retire }
  }
  const first = await start({})
  await first.ask()
  const second = await start({ edge: { bodyLimit: '1mb' } })
  await first.retire()
  await second.ask()
  t.equal(tokens.requests.length, 1)
  await second.retire()
})
