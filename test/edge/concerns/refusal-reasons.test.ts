/** `reason` in the access line: the cause of a refusal, if the error code has several. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { reasonOf } from '../../../plugins/edge/concerns/jwt/reasons.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, keys, pem, seconds, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'

const issuer = 'https://id.example'
const audience = 'api'

/** A server that publishes a set of one key, `rsa`, under the id `one`. */
async function keyServer(t: Test): Promise<string> {
  const jwk = { ...keys.rsa.publicKey.export({ format: 'jwk' }), kid: 'one' }
  const server = createServer((_request, response) => response.end(JSON.stringify({ keys: [jwk] })))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/jwks.json`
}

/** Authorization values and the reasons for which they are refused, for one kind of key. */
function refusedTokens(sign: (claims: object) => string, forged: string) {
  const good = { iss: issuer, aud: audience }
  const signed = (more: object) => `Bearer ${sign(claims({ ...good, ...more }))}`
  const valid = sign(claims(good))
  const { exp: _exp, ...endless } = claims(good)
  const { aud: _aud, ...aimless } = claims(good)
  return [
    ['Basic dXNlcjpwYXNz', 'jwt_scheme'],
    ['Bearer', 'jwt_scheme'],
    ['Bearer abc', 'jwt_malformed'],
    ['Bearer a.b.c', 'jwt_malformed'],
    [`Bearer ${valid.slice(0, 20)}`, 'jwt_malformed'],
    [`Bearer ${'x'.repeat(5000)}`, 'jwt_too_large'],
    [`Bearer ${forged}`, 'jwt_signature'],
    [`Bearer ${token(claims(good), secret, { alg: 'HS384' })}`, 'jwt_algorithm'],
    [signed({ exp: seconds() - 60 }), 'jwt_expired'],
    [signed({ nbf: seconds() + 60 }), 'jwt_not_yet_valid'],
    [signed({ iat: seconds() + 60 }), 'jwt_not_yet_valid'],
    [signed({ iss: 'https://other.example' }), 'jwt_issuer'],
    [signed({ iss: 7 }), 'jwt_issuer'],
    [signed({ aud: 'another' }), 'jwt_audience'],
    [`Bearer ${sign(aimless)}`, 'jwt_audience'],
    [`Bearer ${sign(endless)}`, 'jwt_claim'],
    [signed({ exp: 'soon' }), 'jwt_claim']
  ] as const
}

for (const protocol of protocols) {
  t.test(`tokens over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const jwks = await keyServer(t)
    const forKey = (key: object) => ({ jwt: { ...key, issuer, audience, maxTokenSize: '4kb' } })
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [echo.url] } },
        routes: [
          ['secret', { secret, algorithms: ['HS256'] }] as const,
          ['key', { publicKey: pem(keys.rsa), algorithms: ['RS256'] }] as const,
          ['set', { jwks, algorithms: ['RS256'] }] as const
        ].map(([name, key]) => ({ name, match: { path: `/${name}` }, service: 'any', edge: forKey(key) }))
      },
      { log: true }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    const reasonFor = async (path: string, headers: Record<string, string>) => {
      const before = lines().length
      const { status, body } = await ask(path, { headers })
      await eventually(() => lines().length > before)
      const line = lines()[before]!
      t.equal(line.status, status)
      return { status, reason: line.reason, body: body.toString() }
    }
    const byRsa = (pair: typeof keys.rsa) => (claims: object) => token(claims, pair, { alg: 'RS256', kid: 'one' })
    const good = claims({ iss: issuer, aud: audience })
    const cases = [
      ['/secret', refusedTokens((claims) => token(claims), token(good, 'another secret of at least 32 bytes'))],
      ['/key', refusedTokens(byRsa(keys.rsa), byRsa(keys.otherRsa)(good))],
      ['/set', refusedTokens(byRsa(keys.rsa), byRsa(keys.otherRsa)(good))]
    ] as const
    for (const [path, table] of cases) {
      t.match(await reasonFor(path, {}), { status: 401, reason: 'jwt_missing' }, path)
      for (const [authorization, reason] of table) {
        const found = await reasonFor(path, { authorization })
        t.match(found, { status: 401, reason }, `${path} ${authorization.slice(0, 50)}`)
        t.notMatch(found.body, /jwt_/, 'the response does not contain it')
      }
    }
    const unknown = token(good, keys.rsa, { alg: 'RS256', kid: 'two' })
    t.match(await reasonFor('/set', { authorization: `Bearer ${unknown}` }), { status: 401, reason: 'jwt_key' })
    const accepted = await reasonFor('/secret', { authorization: `Bearer ${token(good)}` })
    t.match(accepted, { status: 200, reason: undefined })
    const refused = gateway.log.filter(({ status }) => status !== 200)
    t.notMatch(JSON.stringify(refused), /eyJ|sub"|"ann|another|other\.example/, 'no part of a token')
  })

  t.test(`targets over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [echo.url] } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      },
      { log: true }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    const cases = [
      ['/a/../b', 'path_dot_segment'],
      ['/a/%2e%2E/b', 'path_dot_segment'],
      ['/a/.;/b', 'path_dot_segment'],
      ['/a;b=1/c', 'path_parameters'],
      ['/a%3bb/c', 'path_parameters'],
      ['/a\\b', 'path_backslash'],
      ['/a%5cb', 'path_backslash'],
      ['/a%2fb', 'path_encoded_slash'],
      ['/a%00b', 'path_nul'],
      ['/%c0%ae', 'path_overlong_utf8'],
      ['/a#b', 'path_fragment']
    ] as const
    for (const [index, [path, reason]] of cases.entries()) {
      t.equal((await ask(path)).status, 400, path)
      await eventually(() => lines().length > index)
      t.match(lines()[index], { error: 'JW_AMBIGUOUS_PATH', reason, status: 400 }, path)
    }
    // Over HTTP/1.1, Node's parser refuses it.
    if (protocol !== 'HTTP/2') return
    t.equal((await ask('/\u00e9')).status, 400)
    await eventually(() => lines().length > cases.length)
    t.match(lines().at(-1), { error: 'JW_BAD_TARGET', reason: 'target_characters' })
  })

  t.test(`limits over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const limit = { max: 1, window: '1m' }
    const jwt = { secret }
    const edges = {
      ip: { rateLimit: limit },
      header: { rateLimit: { ...limit, by: 'header:x-key' } },
      address: { rateLimit: { ...limit, max: 10, by: 'header:x-key', maxPerAddress: 1 } },
      consumer: { jwt, rateLimit: { ...limit, by: 'consumer' } }
    }
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [echo.url] } },
        routes: Object.entries(edges).map(([name, edge]) => ({
          name,
          match: { path: `/${name}` },
          service: 'any',
          edge
        }))
      },
      { log: true }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const headers = { 'x-key': 'hunter2', authorization: `Bearer ${token(claims())}` }
    const found = async (route: string, more: Record<string, string>) => {
      for (const status of [200, 429]) t.equal((await ask(`/${route}`, { headers: more })).status, status)
      const line = () => gateway.log.find((line) => line.route === route && line.status === 429)
      await eventually(() => line() !== undefined)
      return line()!.reason
    }
    t.equal(await found('ip', headers), 'rate_ip')
    t.equal(await found('header', headers), 'rate_header')
    t.equal(await found('address', headers), 'rate_max_per_address')
    t.equal(await found('consumer', headers), 'rate_consumer')
    t.notMatch(JSON.stringify(gateway.log), /hunter2/)
  })
}

/** Services that refuse calls, and the reasons; requests to `/wait` are held. */
function refusingServices(url: string) {
  const breaker = { errorRatio: false, slowRatio: false }
  const balance = { policy: 'round-robin', panicThreshold: '0%' }
  const healthCheck = { path: '/fail', interval: '50ms', timeout: '1s', unhealthyThreshold: 1 }
  return {
    unknown: {},
    none: { instances: [url], subsets: { blue: { tags: ['blue'] } } },
    unavailable: { instances: [url], mesh: { balance, healthCheck } },
    requests: { instances: [url], mesh: { circuitBreaker: { ...breaker, maxRequests: 1 } } },
    pending: { instances: [url], mesh: { circuitBreaker: { ...breaker, maxConnections: 1, maxPendingRequests: 0 } } },
    open: { instances: [url], mesh: { retry: false, circuitBreaker: { errorRatio: '1%', minRequests: 1 } } }
  }
}

async function refusing(t: Test, listen: object) {
  const service = await startService(({ url }, response) => {
    if (url?.endsWith('/fail')) response.writeHead(500).end()
  })
  t.teardown(service.close)
  const services = refusingServices(service.url)
  const routes = Object.keys(services).map((name) => {
    const mesh = name === 'none' ? { subset: 'blue' } : {}
    return { name, match: { path: `/${name}` }, service: name, mesh }
  })
  const discovery = { consul: { url: 'http://127.0.0.1:9' } }
  const gateway = await startGateway({ listen, discovery, services, routes }, { log: true })
  t.teardown(gateway.close)
  return gateway
}

for (const protocol of protocols) {
  t.test(`refusals of the mesh over ${protocol}`, async (t) => {
    const gateway = await refusing(t, listenFor(t, protocol))
    const { ask, begin } = anyClient(t, protocol, gateway.port)
    const refused = async (route: string, error: string, reason: string) => {
      const { status, body } = await ask(`/${route}`)
      t.equal(status, 503)
      t.notMatch(body.toString(), reason)
      const line = () => gateway.log.find((line) => line.route === route && line.status === 503)
      await eventually(() => line() !== undefined)
      t.match(line(), { error, reason, answeredBy: 'gateway' })
    }
    await refused('unknown', 'JW_NO_INSTANCE', 'instances_unknown')
    await refused('none', 'JW_NO_INSTANCE', 'instances_none')
    await eventually(() => !gateway.server.mesh.service('unavailable').status().instances[0]!.available)
    await refused('unavailable', 'JW_NO_INSTANCE', 'instances_unavailable')
    for (const route of ['requests', 'pending']) {
      const held = begin(`/${route}/wait`)
      await eventually(() => gateway.server.mesh.service(route).status().active === 1)
      await refused(route, 'JW_OVERLOADED', `overload_${route}`)
      await held.leave()
    }
    t.equal((await ask('/open/fail')).status, 500)
    await refused('open', 'JW_CIRCUIT_OPEN', 'circuit_open')
  })
}

t.test('a WebSocket that the mesh refuses', async (t) => {
  const gateway = await refusing(t, {})
  const client = connect(gateway.port, handshake('/unknown'))
  await client.until('503')
  client.socket.destroy()
  await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
  const line = gateway.log.find(({ msg }) => msg === 'request')
  t.match(line, { status: 503, error: 'JW_NO_INSTANCE', reason: 'instances_unknown', answeredBy: 'gateway' })
})

t.test('hosts, framing and other targets, in bytes', async (t) => {
  const gateway = await startGateway({ services: {}, routes: [] }, { log: true })
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const cases = [
    ['GET / HTTP/1.1\r\nHost: a b\r\n', 'JW_BAD_HOST', 'host_malformed'],
    ['GET / HTTP/1.1\r\nHost:\r\n', 'JW_BAD_HOST', 'host_missing'],
    ['GET * HTTP/1.1\r\nHost: h\r\n', 'JW_BAD_TARGET', 'target_form'],
    ['POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n', 'JW_BAD_FRAMING', 'framing_transfer_encoding'],
    ['POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n', 'JW_BAD_FRAMING', 'framing_content_length']
  ] as const
  for (const [index, [head, error, reason]] of cases.entries()) {
    await raw(gateway.port, `${head}Connection: close\r\n\r\n`)
    await eventually(() => lines().length > index)
    t.match(lines()[index], { error, reason }, JSON.stringify(head))
  }
  const client = connect(gateway.port, 'BAD\r\n\r\n')
  await client.closed
  await eventually(() => lines().length > cases.length)
  t.match(lines().at(-1), { status: 400, reason: 'malformed', answeredBy: 'gateway', error: /^HPE_/, ip: '127.0.0.1' })
})

t.test('ambiguous paths', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const jwt = { secret }
  const gateway = await startGateway(
    {
      services: { any: { instances: [echo.url] } },
      routes: [
        { name: 'all', match: { path: '/' }, service: 'any' },
        { name: 'closed', match: { path: '/closed' }, service: 'any', edge: { jwt } }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  await raw(gateway.port, 'GET /CLOSED HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n')
  await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
  t.match(gateway.log.at(-1), { status: 400, error: 'JW_AMBIGUOUS_PATH', reason: 'path_spelling' })
})

t.test('the handshake of a WebSocket whose token is refused', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const edge = { jwt: { secret, audience } }
  const gateway = await startGateway(
    {
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'ws', match: { path: '/ws' }, service: 'any', edge }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const client = connect(gateway.port, handshake('/ws', [`Authorization: Bearer ${token(claims({ aud: 'other' }))}`]))
  await client.until('401')
  client.socket.destroy()
  await eventually(() => gateway.log.some(({ msg }) => msg === 'request'))
  t.match(gateway.log.at(-1), { status: 401, error: 'JW_TOKEN_INVALID', reason: 'jwt_audience', answeredBy: 'gateway' })
})

t.test('an unknown failure has a listed reason, too', async (t) => {
  for (const error of [null, undefined, 'text', new Error('secret text'), { code: 7 }]) {
    t.equal(reasonOf(error), 'jwt_other')
  }
})
