// slow: takes about 4 s
/** Requests signed with a shared secret: every spelling, what a signature must cover, bodies, dates and replays. */
import { createHmac, hash } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import { Replays } from '../../../plugins/edge/authentication/replays.ts'
import { consumersTiming } from '../../../plugins/edge/consumers/index.ts'
import type { AskOptions, Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, token, secret as tokenSecret } from '../../helpers/edge/tokens.ts'
import { handshake, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { connect, gatewayBefore, get, raw, startEcho, startGateway } from '../../helpers/gateway.ts'
import { folder } from '../../helpers/plugins.ts'

consumersTiming.intervalMs = 10

const secret = 's\u00e9cret of alice'
const consumers = [
  { name: 'alice', hmacAuth: { username: 'al ice', secret } },
  { name: 'bob', hmacAuth: [{ username: 'bob-1', secret: 'b1' }, { username: 'bob-2', secret: 'b2' }] }
] // biome-ignore format: a list

/** Time of all gateways and signers. */
let time = Date.parse('2026-11-29T12:00:00Z')
const clock = { now: () => time, date: () => time }
const date = (ms = time) => new Date(ms).toUTCString()

interface Signed extends AskOptions {
  path?: string
  headers?: Record<string, string>
  /** Names that are signed. */
  names?: string
  /** Lines in place of the ones that the names stand for. */
  lines?: Record<string, string>
  username?: string
  key?: string
  algorithm?: string
}

const versions = { 'HTTP/1.1': '1.1', TLS: '1.1', 'HTTP/2': '2.0' } as const

/** Returns the headers of a signed request. */
function signed(protocol: Protocol, given: Signed = {}): Record<string, string> {
  const {
    path = '/',
    method = 'GET',
    names = 'date request-line',
    lines = {},
    username = 'al ice',
    key = secret
  } = given
  const headers: Record<string, string> = { date: date(), ...given.headers }
  const text = names.split(' ').map((name) => {
    if (name in lines) return lines[name]
    if (name === 'request-line') return `${method} ${path} HTTP/${versions[protocol]}`
    if (name === '@request-target') return `@request-target: ${method.toLowerCase()} ${path}`
    const value = headers[name.toLowerCase()]
    return value === undefined ? `${name}:` : `${name}: ${value}`
  })
  const algorithm = given.algorithm ?? 'hmac-sha256'
  const mac = createHmac(algorithm.slice(5), key).update(text.join('\n'), 'latin1').digest('base64')
  const authorization = `hmac username="${username}", algorithm="${algorithm}", headers="${names}", signature="${mac}"`
  return { ...headers, authorization }
}

interface Options {
  protocol?: Protocol
  hmacAuth?: object
  edge?: object
  services?: object
  path?: object
  file?: string
}

async function gatewayWith(
  t: Test,
  { protocol = 'HTTP/1.1', hmacAuth = {}, edge = {}, services, path, file }: Options
) {
  const service = await startEcho()
  t.teardown(service.close)
  const config = {
    listen: listenFor(t, protocol),
    services: services ?? { any: { instances: [service.url] } },
    edge: { hmacAuth, ...edge },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', ...(path && { path }) }],
    consumers: file === undefined ? consumers : { file }
  }
  let arrived = 0
  const gateway = await startGateway(config, {
    log: true,
    before(server) {
      server.decorate(CLOCK, clock)
      server.addHook('onRequest', (_request, _reply, done) => {
        arrived++
        done()
      })
    }
  })
  t.teardown(gateway.close)
  const { ask, begin } = anyClient(t, protocol, gateway.port)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const outcome = async (headers: Record<string, string>, path = '/', options: AskOptions = {}) => {
    const before = lines().length
    const { status } = await ask(path, { ...options, headers })
    await eventually(() => lines().length > before)
    const line = lines().at(-1)!
    return [status, line.reason ?? line.consumer ?? line.error]
  }
  const seen = async (headers: Record<string, string>, path = '/', options: AskOptions = {}) =>
    JSON.parse((await ask(path, { ...options, headers })).body.toString()) as Seen
  return { ...gateway, ask, begin, outcome, seen, lines, arrived: () => arrived }
}

for (const protocol of protocols) {
  t.test(`signatures over ${protocol}`, async (t) => {
    const { outcome, ask, seen, port } = await gatewayWith(t, { protocol })
    const sign = (given: Signed = {}) => signed(protocol, given)
    t.same(await outcome(sign()), [200, 'alice'])
    t.same(await outcome(sign({ path: '/a%20b?c=d&e', names: '@request-target date' }), '/a%20b?c=d&e'), [200, 'alice'])
    t.same(await outcome(sign({ username: 'bob-2', key: 'b2' })), [200, 'bob'])
    t.same(await outcome(sign({ algorithm: 'hmac-sha512' })), [200, 'alice'])
    t.same(await outcome(sign({ headers: { 'x-date': date(), date: 'x' }, names: 'request-line X-Date' })), [
      200,
      'alice'
    ])
    t.same(await outcome(sign({ headers: { 'x-a': 'a: b' }, names: 'x-a date x-none request-line' })), [200, 'alice'])
    const host = { [protocol === 'HTTP/2' ? ':authority' : 'host']: 'a.example' }
    const named = sign({ headers: host, names: 'host date request-line', lines: { host: 'host: a.example' } })
    t.same(await outcome(named), [200, 'alice'])
    t.same(await outcome({ ...named, [Object.keys(host)[0]!]: 'b.example' }), [401, 'hmac_wrong'])

    t.same(await outcome(sign(), '/?'), [401, 'hmac_wrong'])
    t.same(await outcome(sign(), '/', { method: 'DELETE' }), [401, 'hmac_wrong'])
    t.same(await outcome({ ...sign(), date: date(time + 1000) }), [401, 'hmac_wrong'])
    t.same(await outcome({ ...sign(), 'request-line': `DELETE / HTTP/${versions[protocol]}` }), [200, 'alice'])
    t.same(await outcome(sign({ key: 'no' })), [401, 'hmac_wrong'])
    t.same(await outcome(sign({ username: 'bob-1', key: 'b2' })), [401, 'hmac_wrong'])
    t.same(await outcome(sign({ username: 'alice' })), [401, 'hmac_wrong'])
    t.same(await outcome(sign({ algorithm: 'hmac-sha1' })), [401, 'hmac_algorithm'])
    t.same(await outcome(sign({ names: 'date' })), [401, 'hmac_headers'])
    t.same(await outcome(sign({ names: 'request-line' })), [401, 'hmac_headers'])
    t.same(await outcome(sign({ headers: { date: date(time - 300_000) } })), [200, 'alice'])
    t.same(await outcome(sign({ headers: { date: date(time - 301_000) } })), [401, 'hmac_skew'])
    t.same(await outcome(sign({ headers: { date: date(time + 301_000) } })), [401, 'hmac_skew'])
    t.same(await outcome(sign({ headers: { date: new Date(time).toISOString() } })), [401, 'hmac_date'])
    t.same(await outcome(sign({ names: 'x-date request-line' })), [401, 'hmac_date'], 'Date alone is not signed')
    t.same(await outcome({ date: date() }), [401, 'hmac_missing'])

    const covering = sign({ headers: { 'x-user': 'a' }, names: 'x-user date request-line' })
    t.same(await outcome(covering), [200, 'alice'])
    t.same(await outcome({ ...covering, x_user: 'b' }), [401, 'hmac_field'], 'services read it as x-user')
    t.same(await outcome({ ...covering, 'x-user': 'b' }), [401, 'hmac_wrong'])
    const bytes = sign({ headers: { 'x-user': 'a\u00e9' }, names: 'x-user date request-line' })
    t.same(await outcome(bytes), [200, 'alice'], 'bytes that are not ASCII')
    if (protocol !== 'HTTP/2') {
      t.same(await outcome({ ...covering, 'X-User': 'b' }), [401, 'hmac_field'])
      t.same(await outcome({ ...covering, connection: 'close, X-User' }), [401, 'hmac_field'], 'it would be removed')
      t.same(await outcome({ ...covering, Authorization: covering.authorization! }), [401, 'hmac_repeated'])
      const absolute = Object.entries({ host: `h:${port}`, ...sign({ path: '/p?q' }) })
      const lines = absolute.map(([name, value]) => `${name}: ${value}\r\n`).join('')
      if (protocol === 'HTTP/1.1') {
        const text = `GET http://h:${port}/p?q HTTP/1.1\r\n${lines}connection: close\r\n\r\n`
        t.match(await raw(port, text), /^HTTP\/1.1 200 /)
      }
    }
    const { authorization = '' } = sign()
    for (const malformed of [
      'hmac',
      `${authorization}, x="y"`,
      authorization.replace('hmac ', 'hmac username="bob-1", '),
      authorization.replace('signature', 'signatur'),
      authorization.replace(/="$/, '"'),
      authorization.replace(/"$/, ''),
      authorization.replace('date request-line', 'date  request-line'),
      authorization.replace('date request-line', `date request-line${' a'.repeat(70)}`)
    ]) {
      t.same(await outcome({ date: date(), authorization: malformed }), [401, 'hmac_malformed'], malformed)
    }
    const reordered = authorization.replace(/(username="[^"]*"), (.*)/, '$2,$1').replace('hmac', 'HMAC')
    t.same(await outcome({ date: date(), authorization: reordered }), [200, 'alice'])

    const forGateway = { date: date(), 'proxy-authorization': authorization }
    t.same(await outcome(forGateway), [200, 'alice'])
    t.same(await outcome({ ...forGateway, authorization }), [401, 'hmac_repeated'])
    t.match((await seen(sign())).headers, { authorization: undefined, date: date() })
    for (const unverified of ['Bearer forged', `Basic ${btoa('admin:guess')}`, 'x']) {
      const { headers } = await seen({ ...forGateway, authorization: unverified })
      t.match(headers, { authorization: undefined, 'proxy-authorization': undefined }, unverified)
    }
    const refused = await ask('/', { headers: sign({ key: 'no' }) })
    t.equal(refused.headers['www-authenticate'], 'hmac realm="jingwei", headers="date request-line"')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_SIGNATURE_INVALID', statusCode: 401 })
  })

  t.test(`bodies over ${protocol}`, async (t) => {
    const { outcome, seen, begin } = await gatewayWith(t, {
      protocol,
      hmacAuth: { validateRequestBody: true, maxBodySize: '64kb' }
    })
    const body = Buffer.alloc(40_000, '0123456789abc')
    const digest = `SHA-256=${hash('sha256', body, 'base64')}`
    const contentDigest = `sha-256=:${hash('sha256', body, 'base64')}:, sha-512=:${hash('sha512', body, 'base64')}:`
    const post = { method: 'POST', body }
    const names = 'date request-line digest'
    const withDigest = signed(protocol, { ...post, names, headers: { digest } })
    t.ok((await seen(withDigest, '/', post)).body === body.toString())
    const fields = { ...post, names: 'date request-line content-digest', headers: { 'content-digest': contentDigest } }
    t.same(await outcome(signed(protocol, fields), '/', post), [200, 'alice'])
    const call = begin('/', { method: 'POST', headers: withDigest, streams: true })
    for (let at = 0; at < body.length; at += 10_000) call.send(body.subarray(at, at + 10_000))
    call.end()
    t.ok((JSON.parse((await call.response).body.toString()) as Seen).body === body.toString(), 'of unknown length')

    const wrong: [string, Record<string, string>, AskOptions][] = [
      ['another body', withDigest, { ...post, body: `${body.toString().slice(0, -1)}x` }],
      ['no body', withDigest, { method: 'POST' }],
      ['no digest', signed(protocol, post), post],
      ['a digest that is not signed', { ...signed(protocol, post), digest }, post],
      ['only an unknown algorithm', signed(protocol, { ...post, names, headers: { digest: 'MD5=aaaa' } }), post],
      ['one digest of two is wrong', signed(protocol, { ...post, names, headers: { digest: `${digest}, SHA-512=aaaa` } }), post]
    ] // biome-ignore format: a list
    for (const [what, headers, options] of wrong) {
      t.same(await outcome(headers, '/', options), [401, 'hmac_digest'], what)
    }
    t.same(await outcome(signed(protocol)), [200, 'alice'], 'without a body')
    const large = { ...post, body: Buffer.alloc(65_537) }
    const largeDigest = { digest: `SHA-256=${hash('sha256', large.body, 'base64')}` }
    const tooLarge = await outcome(signed(protocol, { ...large, names, headers: largeDigest }), '/', large)
    t.same(tooLarge, [413, 'JW_BODY_TOO_LARGE'])
  })
}

t.test('a signature in Proxy-Authorization lets no credentials of other methods through', async (t) => {
  const { authorization: mac } = signed('HTTP/1.1')
  const forGateway = { date: date(), 'proxy-authorization': mac! }
  const valid = `Bearer ${token(claims({ iat: time / 1000, exp: time / 1000 + 300 }))}`
  const jwt = { secret: tokenSecret, algorithms: ['HS256'] }
  const require = (value: string) => ({ authentication: { require: value } })
  for (const edge of [{ basicAuth: {} }, { jwt }, { basicAuth: {}, jwt }, { messageSignature: {} }]) {
    for (const hideCredentials of [true, false]) {
      const { seen } = await gatewayWith(t, { hmacAuth: { hideCredentials }, edge: { ...edge, ...require('any') } })
      for (const unverified of ['Bearer forged', `Basic ${btoa('admin:guess')}`, valid]) {
        const { headers } = await seen({ ...forGateway, authorization: unverified })
        t.match(headers, { authorization: undefined, 'proxy-authorization': undefined }, unverified)
      }
      const { authorization } = (await seen(signed('HTTP/1.1'))).headers
      t.equal(authorization, hideCredentials ? undefined : mac, 'a verified signature stays, if it is not hidden')
    }
  }
  const { seen, outcome } = await gatewayWith(t, { edge: { jwt, ...require('all') } })
  const { headers } = await seen({ ...forGateway, authorization: valid })
  t.match(headers, { authorization: valid, 'proxy-authorization': undefined }, 'jwt has verified it')
  t.same(await outcome({ ...forGateway, authorization: 'Bearer forged' }), [401, 'jwt_malformed'])
})

t.test('each signature is accepted once, if replayWindow is set', async (t) => {
  const { outcome } = await gatewayWith(t, { hmacAuth: { replayWindow: {}, clockSkew: '10s' } })
  const first = signed('HTTP/1.1')
  t.same(await outcome(first), [200, 'alice'])
  t.same(await outcome(first), [401, 'hmac_replayed'])
  t.same(await outcome(signed('HTTP/1.1', { path: '/b' }), '/b'), [200, 'alice'])
  const ahead = signed('HTTP/1.1', { headers: { date: date(time + 10_000) } })
  t.same(await outcome(ahead), [200, 'alice'])
  time += 20_000
  t.same(await outcome(ahead), [401, 'hmac_replayed'], 'as long as its date is accepted')
  t.same(await outcome(signed('HTTP/1.1')), [200, 'alice'])
})

t.test('the memory for signatures is bounded, and a consumer leaves half of it to others', async (t) => {
  let now = 0
  const replays = new Replays(4 * 24, 800, () => now)
  t.equal(replays.add('a', '1', '2'), true)
  now = 500
  t.equal(replays.add('a', '12', ''), true, 'parts are kept apart')
  t.throws(() => replays.add('a', '3'), { code: 'JW_SIGNATURES_LIMITED', statusCode: 429, retryAfterMs: 400 })
  t.equal(replays.add('a', '1', '2'), false)
  t.equal(replays.add('b', '3'), true)
  t.throws(() => replays.add('b', '4'), { code: 'JW_SIGNATURES_LIMITED' }, 'as many as are left')
  t.equal(replays.used, 0.75)
  t.equal(replays.add('c', '4'), true)
  t.throws(() => replays.add('d', '5'), { code: 'JW_REPLAY_WINDOW_FULL', statusCode: 503, retryAfterMs: 400 })
  now = 800
  t.equal(replays.add('a', '1', '2'), false, 'as long as the window')
  now = 901
  t.equal(replays.used, 0.75)
  t.equal(replays.add('d', '1', '2'), true)
  t.equal(replays.add('a', '12', ''), false)
  now = 10_000
  t.equal(replays.used, 0)
})

t.test('many signatures are remembered in the memory that is given', async (t) => {
  let now = 0
  const replays = new Replays(24 * 20_000, 1000, () => now)
  for (let i = 0; i < 10_000; i++) {
    now = i / 10
    if (!replays.add('a', String(i))) t.fail(`${i} was not added`)
  }
  for (let i = 0; i < 10_000; i++) if (replays.add('a', String(i))) t.fail(`${i} was forgotten`)
  t.throws(() => replays.add('a', '10000'), { code: 'JW_SIGNATURES_LIMITED' })
})

t.test('a signature that was used is refused before the body is read', async (t) => {
  const { outcome, port } = await gatewayWith(t, { hmacAuth: { replayWindow: {}, validateRequestBody: true } })
  const post = { method: 'POST', body: 'abc' }
  const digest = `SHA-256=${hash('sha256', 'abc', 'base64')}`
  const headers = signed('HTTP/1.1', { ...post, names: 'date request-line digest', headers: { digest } })
  t.same(await outcome(headers, '/', post), [200, 'alice'])
  const lines = Object.entries({ host: 'x', 'content-length': '3', ...headers }).map(
    ([name, value]) => `${name}: ${value}`
  )
  const client = connect(port, `POST / HTTP/1.1\r\n${lines.join('\r\n')}\r\n\r\na`)
  t.match(await client.until('\r\n\r\n'), /^HTTP\/1.1 401 /)
  client.socket.destroy()
})

t.test('a wrong digest does not use up the signature', async (t) => {
  const { outcome } = await gatewayWith(t, { hmacAuth: { replayWindow: {}, validateRequestBody: true } })
  const post = { method: 'POST', body: 'abc' }
  const digest = `SHA-256=${hash('sha256', 'abc', 'base64')}`
  const headers = signed('HTTP/1.1', { ...post, names: 'date request-line digest', headers: { digest } })
  t.same(await outcome(headers, '/', { ...post, body: 'abd' }), [401, 'hmac_digest'])
  t.same(await outcome(headers, '/', post), [200, 'alice'])
  t.same(await outcome(headers, '/', post), [401, 'hmac_replayed'])
})

t.test('the path is that of the client, whatever the route sends to the service', async (t) => {
  const { outcome, seen } = await gatewayWith(t, {
    path: { rewrite: { path: '/v2' } },
    hmacAuth: { hideCredentials: false }
  })
  const headers = signed('HTTP/1.1', { path: '/v1?a' })
  t.match(await seen(headers, '/v1?a'), { url: '/v2?a', headers: { authorization: headers.authorization } })
  t.same(await outcome(signed('HTTP/1.1', { path: '/v2?a' }), '/v1?a'), [401, 'hmac_wrong'])
})

t.test('with other methods', async (t) => {
  const edge = { keyAuth: {}, authentication: { require: 'any', failures: { max: 3, window: '1h' } } }
  const { outcome, ask } = await gatewayWith(t, { edge, hmacAuth: {} })
  t.same(await outcome(signed('HTTP/1.1')), [200, 'alice'])
  t.same(await outcome({}), [401, 'auth_missing'])
  const { headers } = await ask('/')
  t.match(headers['www-authenticate'], /^Key realm="jingwei", hmac realm="jingwei"/)
  for (let at = 0; at < 3; at++) t.same(await outcome(signed('HTTP/1.1', { key: 'no' })), [401, 'hmac_wrong'])
  t.same(await outcome(signed('HTTP/1.1')), [429, 'auth_failures'])
})

t.test('shadow mode refuses nothing, and hands on a body that it has read', async (t) => {
  const { seen, lines } = await gatewayWith(t, {
    hmacAuth: { mode: 'shadow', validateRequestBody: true, maxBodySize: '1kb' }
  })
  const headers = signed('HTTP/1.1', { key: 'no' })
  t.match((await seen(headers)).headers, { authorization: headers.authorization })
  await eventually(() => lines().length === 1)
  t.match(lines()[0], { status: 200, shadow: [{ concern: 'hmac-auth', reason: 'hmac_wrong' }] })
  const body = 'x'.repeat(100_000)
  const names = 'date request-line digest'
  const large = signed('HTTP/1.1', { method: 'POST', names, headers: { digest: 'SHA-256=aaaa' } })
  t.ok((await seen(large, '/', { method: 'POST', body })).body === body)
  t.equal((await seen(large, '/', { method: 'POST', body: 'small' })).body, 'small')
})

t.test('a body is read once, though forward auth reads it, too', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const { seen } = await gatewayWith(t, {
    hmacAuth: { validateRequestBody: true },
    edge: { forwardAuth: { url: service.url, forwardBody: true } }
  })
  const post = { method: 'POST', body: 'abc' }
  const digest = `SHA-256=${hash('sha256', 'abc', 'base64')}`
  const headers = signed('HTTP/1.1', { ...post, names: 'date request-line digest', headers: { digest } })
  t.equal((await seen(headers, '/', post)).body, 'abc')
})

t.test('a WebSocket handshake is signed', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, { services: { any: { instances: [service.url] } } })
  t.match(await raw(port, handshake('/ws')), /^HTTP\/1.1 401 /)
  const headers = Object.entries(signed('HTTP/1.1', { path: '/ws' })).map(([name, value]) => `${name}: ${value}`)
  const { peer } = await open(port, '/ws', headers)
  peer.socket.destroy()
  t.notMatch(service.requests[0]!.rawHeaders.join(), /authorization/i)
})

t.test('a secret that is removed while the body arrives is refused, and a client may leave', async (t) => {
  const root = await folder(t, { 'people.json': JSON.stringify(consumers) })
  const file = join(root, 'people.json')
  const { outcome, begin, lines, arrived } = await gatewayWith(t, { file, hmacAuth: { validateRequestBody: true } })
  const body = 'abcdef'
  const digest = `SHA-256=${hash('sha256', body, 'base64')}`
  const post = { method: 'POST', names: 'date request-line digest', headers: { digest } }
  const call = () => begin('/', { method: 'POST', headers: signed('HTTP/1.1', post), streams: true })
  const left = call()
  left.send('abc')
  await eventually(() => arrived() === 1)
  await left.leave()
  await eventually(() => lines().length === 1)
  t.match(lines()[0], { status: 499 })
  const removed = call()
  removed.send('abc')
  await eventually(() => arrived() === 2)
  await writeFile(file, JSON.stringify([consumers[1]]))
  await eventually(async () => (await outcome(signed('HTTP/1.1')))[0] === 401)
  removed.send('def')
  removed.end()
  t.equal((await removed.response).status, 401)
})

t.test('the challenge names each header once', async (t) => {
  const { port } = await gatewayBefore(t, 'http://127.0.0.1:9', {
    edge: { hmacAuth: { enforceHeaders: ['Date', '@request-target'] } },
    consumers: [{ name: 'al', hmacAuth: { username: 'al', secret: 'a-long-secret-of-the-consumer' } }]
  })
  const { headers } = await get(port, '/')
  t.equal(headers['www-authenticate'], 'hmac realm="jingwei", headers="date @request-target"')
})
