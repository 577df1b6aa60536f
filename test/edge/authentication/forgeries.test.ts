/** Tokens with wrong signatures are limited by address: each costs a verification. Other tokens and other clients are not affected. */
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, keys, pem, seconds, secret, token } from '../../helpers/edge/tokens.ts'
import { startEcho, startGateway } from '../../helpers/gateway.ts'

const failures = { max: 3, window: '1h' }

async function gatewayWith(t: Test, protocol: (typeof protocols)[number], jwt: object, edge: object = {}) {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway({
    listen: { ...listenFor(t, protocol), trustProxy: ['127.0.0.1'] },
    consumers: [{ name: 'alice', keyAuth: { hash: `sha256:${'0'.repeat(64)}` } }],
    services: { any: { instances: [service.url] } },
    edge: { authentication: { failures } },
    routes: [
      { name: 'guarded', match: { path: '/' }, service: 'any', edge: { jwt, ...edge } },
      { name: 'keys', match: { path: '/keys' }, service: 'any', edge: { keyAuth: {} } }
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const from = async (ip: string, text: string) => {
    const headers = { 'x-forwarded-for': ip, authorization: `Bearer ${text}` }
    const { status, body, headers: fields } = await ask('/', { headers })
    return { status, code: JSON.parse(body.toString()).code as string | undefined, retryAfter: fields['retry-after'] }
  }
  return { ask, from }
}

const forgedBy = (key: Parameters<typeof token>[1], header?: Record<string, unknown>) => (id: number) =>
  token(claims({ jti: String(id) }), key, header)

for (const protocol of protocols) {
  t.test(`over ${protocol}, an address with forged tokens gets 429, but for tokens that are known`, async (t) => {
    const rs = { alg: 'RS256' }
    const cases = [
      [{ secret }, forgedBy('another secret, long enough for this'), forgedBy(secret)],
      [{ publicKey: pem(keys.rsa), algorithms: ['RS256'] }, forgedBy(keys.otherRsa, rs), forgedBy(keys.rsa, rs)]
    ] as const
    for (const [jwt, forged, valid] of cases) {
      const { ask, from } = await gatewayWith(t, protocol, jwt)
      const known = valid(1)
      t.equal((await from('10.0.0.2', known)).status, 200)
      for (let i = 0; i < 3; i++) t.match(await from('10.0.0.1', forged(i)), { status: 401, code: 'JW_TOKEN_INVALID' })
      t.match(await from('10.0.0.1', forged(3)), { status: 429, code: 'JW_AUTH_LIMITED', retryAfter: /^3[56]\d\d$/ })
      t.equal((await from('10.0.0.1', known)).status, 200, 'clients behind one address go on')
      t.equal((await from('10.0.0.1', valid(2))).status, 429, 'it would have to be verified')
      t.equal((await from('10.0.0.2', valid(2))).status, 200)
      t.equal((await from('10.0.0.1', valid(2))).status, 200)
      const headers = { 'x-forwarded-for': '10.0.0.1', 'x-api-key': 'wrong' }
      t.equal((await ask('/keys', { headers })).status, 401, 'guesses count apart')
    }
  })
}

t.test('tokens that honest clients send do not count', async (t) => {
  const jwt = { secret, audience: 'api', maxAuthAge: '1m' }
  const { ask, from } = await gatewayWith(t, 'HTTP/1.1', jwt)
  const now = seconds()
  const refused = [
    { aud: 'api', exp: now - 60 },
    { aud: 'other' },
    { aud: 'api', nbf: now + 600 },
    { aud: 'api', auth_time: now - 600 }
  ]
  for (const more of refused) {
    for (let i = 0; i < 4; i++)
      t.equal((await from('10.0.0.1', token(claims({ ...more, jti: String(i) })))).status, 401)
  }
  for (const text of ['', 'a', 'a.b.c']) for (let i = 0; i < 4; i++) t.equal((await from('10.0.0.1', text)).status, 401)
  for (let i = 0; i < 4; i++) t.equal((await ask('/', { headers: { 'x-forwarded-for': '10.0.0.1' } })).status, 401)
  t.equal((await from('10.0.0.1', token(claims({ aud: 'api', auth_time: now })))).status, 200)
})

t.test('failures: false sets no limit', async (t) => {
  const forged = forgedBy('another secret, long enough for this')
  const free = await gatewayWith(t, 'HTTP/1.1', { secret }, { authentication: { failures: false } })
  for (let i = 0; i < 5; i++) t.equal((await free.from('10.0.0.1', forged(i))).status, 401)
})
