/** `reason` in the access line for each way in which a token is refused. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Test } from 'tap'
import t from 'tap'
import { reasonOf } from '../../../plugins/edge/concerns/jwt/reasons.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, keys, pem, seconds, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, raw, startEcho, startGateway } from '../../helpers/gateway.ts'

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
  t.test(`the access line has the reason of a refused token over ${protocol}`, async (t) => {
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
        t.notMatch(found.body, /jwt_/, 'the response does not contain the reason')
      }
    }
    const unknown = token(good, keys.rsa, { alg: 'RS256', kid: 'two' })
    t.match(await reasonFor('/set', { authorization: `Bearer ${unknown}` }), { status: 401, reason: 'jwt_key' })
    const accepted = await reasonFor('/secret', { authorization: `Bearer ${token(good)}` })
    t.match(accepted, { status: 200, reason: undefined })
    const refused = gateway.log.filter(({ status }) => status !== 200)
    t.notMatch(JSON.stringify(refused), /eyJ|sub"|"ann|another|other\.example/, 'no part of a token')
  })
}

t.test('the access line has the reason of an ambiguous path', async (t) => {
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

t.test('the access line has the reason of a refused WebSocket handshake', async (t) => {
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
