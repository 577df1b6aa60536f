// slow: makes certificates
/** Tokens that are bound to a client certificate (RFC 8705), and step-up authentication (RFC 9470). */
import { X509Certificate } from 'node:crypto'
import tls from 'node:tls'
import type { Test } from 'tap'
import t from 'tap'
import type { Issued } from '../../helpers/certificates.ts'
import { authority, folderFor } from '../../helpers/certificates.ts'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, keys, pem, seconds, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { raw, startEcho, startGateway } from '../../helpers/gateway.ts'

const made = folderFor(t)
const one = authority(made, 'one')
const server = one.issue('server', { san: 'DNS:localhost,IP:127.0.0.1' })
const [alice, bob] = [one.issue('alice'), one.issue('bob')]
const thumbprint = ({ cert }: { cert: string }, encoding: 'base64' | 'base64url' = 'base64url') =>
  Buffer.from(new X509Certificate(cert).fingerprint256.replaceAll(':', ''), 'hex').toString(encoding)

interface Options {
  readonly protocol?: Protocol
  readonly listen?: object
  readonly service?: string
}

async function gatewayWith(t: Test, jwt: object, { protocol = 'HTTP/1.1', listen, service }: Options = {}) {
  let url = service
  if (url === undefined) {
    const echo = await startEcho()
    t.teardown(echo.close)
    url = echo.url
  }
  const gateway = await startGateway(
    {
      listen: listen ?? listenFor(t, protocol),
      services: { any: { instances: [url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { jwt: { secret, ...jwt } } }]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
  const send = async (text: string, issued: Issued | null = null, headers: Record<string, string> = {}) => {
    const before = lines().length
    const certificate = issued === null ? {} : { cert: issued.cert, key: issued.key }
    const { ask } = anyClient(t, protocol, gateway.port, certificate)
    const response = await ask('/', { headers: { authorization: `Bearer ${text}`, ...headers } })
    await eventually(() => lines().length > before)
    const { reason, consumer } = lines().at(-1)!
    const { code } = JSON.parse(response.body.toString()) as { code?: string }
    return { status: response.status, reason, consumer, code, challenge: response.headers['www-authenticate'] }
  }
  return { ...gateway, send }
}

const withCertificates = (protocol: Protocol) => ({
  http2: protocol === 'HTTP/2',
  tls: { cert: server.certFile, key: server.keyFile, clientCertificate: { mode: 'request', ca: one.file } }
})
const bound = (cnf: unknown, more: object = {}) => token(claims({ cnf, ...more }))
const toAlice = bound({ 'x5t#S256': thumbprint(alice) })

for (const protocol of ['TLS', 'HTTP/2'] as const) {
  t.test(`a token that is bound to a certificate is accepted with it only, over ${protocol}`, async (t) => {
    const { send } = await gatewayWith(t, {}, { protocol, listen: withCertificates(protocol) })
    for (let i = 0; i < 2; i++) {
      t.match(await send(toAlice, alice), { status: 200, consumer: 'ann' })
      for (const other of [bob, null]) {
        t.match(await send(toAlice, other), {
          status: 401,
          code: 'JW_TOKEN_INVALID',
          reason: 'jwt_binding',
          challenge: 'Bearer realm="jingwei", error="invalid_token", error_description="The token is not valid"'
        })
      }
    }
    t.match(await send(token(claims()), bob), { status: 200 }, 'other tokens are bearer tokens')
    t.match(await send(token(claims())), { status: 200 })
    for (const cnf of [{}, { jkt: 'x' }, null, 7, 'text', []]) {
      t.match(await send(bound(cnf)), { status: 200 }, `without a certificate: ${JSON.stringify(cnf)}`)
    }
    for (const value of ['', 'x', null, 7, {}, [thumbprint(alice)], `${thumbprint(alice)}AA`, thumbprint(bob)]) {
      t.match(await send(bound({ 'x5t#S256': value }), alice), { status: 401, reason: 'jwt_binding' }, String(value))
      t.match(await send(bound({ 'x5t#S256': value })), { status: 401, reason: 'jwt_binding' }, String(value))
    }
  })

  t.test(`bound tokens can be required or ignored, over ${protocol}`, async (t) => {
    const listen = withCertificates(protocol)
    const require = await gatewayWith(t, { boundTokens: 'require' }, { protocol, listen })
    t.match(await require.send(toAlice, alice), { status: 200 })
    t.match(await require.send(toAlice, bob), { status: 401, reason: 'jwt_binding' })
    t.match(await require.send(token(claims()), alice), { status: 401, reason: 'jwt_binding' })
    const ignore = await gatewayWith(t, { boundTokens: 'ignore' }, { protocol, listen })
    t.match(await ignore.send(toAlice, bob), { status: 200 })
    t.match(await ignore.send(toAlice), { status: 200 })
  })
}

t.test('one connection may carry tokens that are bound to different certificates', async (t) => {
  const gateway = await gatewayWith(t, {}, { protocol: 'HTTP/2', listen: withCertificates('HTTP/2') })
  const { ask } = anyClient(t, 'HTTP/2', gateway.port, { cert: alice.cert, key: alice.key })
  const toBob = bound({ 'x5t#S256': thumbprint(bob) })
  const statuses = await Promise.all(
    [toAlice, toBob, toAlice, toBob].map(
      async (text) => (await ask('/', { headers: { authorization: `Bearer ${text}` } })).status
    )
  )
  t.strictSame(statuses, [200, 401, 200, 401])
})

t.test('a bound token over a connection without TLS is refused', async (t) => {
  const { send } = await gatewayWith(t, {})
  t.match(await send(toAlice), { status: 401, reason: 'jwt_binding' })
})

t.test('a trusted proxy may forward the certificate, which other peers cannot forge', async (t) => {
  const header = (issued: Issued) => ({ 'client-cert': `:${new X509Certificate(issued.cert).raw.toString('base64')}:` })
  const trusting = { trustProxy: ['127.0.0.1'], trustHeaders: ['client-cert'] }
  const { send } = await gatewayWith(t, { boundTokens: 'require' }, { listen: trusting })
  t.match(await send(toAlice, null, header(alice)), { status: 200, consumer: 'ann' })
  t.match(await send(toAlice, null, header(bob)), { status: 401, reason: 'jwt_binding' })
  t.match(await send(toAlice), { status: 401, reason: 'jwt_binding' })
  const other = await gatewayWith(t, {}, { listen: { trustProxy: ['127.0.0.2'], trustHeaders: ['client-cert'] } })
  t.match(await other.send(toAlice, null, header(alice)), { status: 401, reason: 'jwt_binding' })
})

t.test('a bound token on a WebSocket handshake', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const gateway = await gatewayWith(t, {}, { listen: withCertificates('TLS'), service: service.url })
  const upgrade = (issued: Issued) =>
    new Promise<string>((resolve, reject) => {
      const { cert, key } = issued
      const socket = tls.connect({ port: gateway.port, host: '127.0.0.1', rejectUnauthorized: false, cert, key })
      t.teardown(() => socket.destroy())
      socket.on('error', reject)
      socket.once('data', (chunk: Buffer) => resolve(chunk.toString()))
      socket.write(handshake('/ws', [`authorization: Bearer ${toAlice}`]))
    })
  t.match(await upgrade(alice), /^HTTP\/1.1 101 /)
  t.match(await upgrade(bob), /^HTTP\/1.1 401 /)
})

t.test('a bound token by a public key, which is verified asynchronously with a set', async (t) => {
  const listen = withCertificates('TLS')
  const jwt = { secret: undefined, publicKey: pem(keys.p256) }
  const { send } = await gatewayWith(t, jwt, { protocol: 'TLS', listen })
  const text = token(claims({ cnf: { 'x5t#S256': thumbprint(alice) } }), keys.p256, { alg: 'ES256' })
  t.match(await send(text, alice), { status: 200 })
  t.match(await send(text, bob), { status: 401, reason: 'jwt_binding' })
})

for (const protocol of protocols) {
  t.test(`a user who must log in again, or in another way, over ${protocol}`, async (t) => {
    const jwt = { acrValues: ['gold', 'urn:mfa'], maxAuthAge: '5m', clockSkew: '5s', scopes: ['read'] }
    const { send } = await gatewayWith(t, jwt, { protocol })
    const good = { acr: 'gold', auth_time: seconds(), scope: 'read' }
    const of = (more: object) => send(token(claims({ ...good, ...more })))
    t.match(await of({}), { status: 200, consumer: 'ann' })
    t.match(await of({ acr: 'urn:mfa' }), { status: 200 })
    t.match(await of({ auth_time: seconds() - 290 }), { status: 200 })
    const challenge =
      'Bearer realm="jingwei", error="insufficient_user_authentication", error_description="Another authentication of the user is required", acr_values="gold urn:mfa", max_age="300"'
    const refused = { status: 401, code: 'JW_STEP_UP_REQUIRED', challenge }
    for (const acr of [undefined, 'silver', 'GOLD', '', null, 7, { gold: true }]) {
      t.match(await of({ acr }), { ...refused, reason: 'jwt_acr' }, JSON.stringify(acr))
    }
    for (const auth_time of [undefined, 0, seconds() - 310, String(seconds()), null, [seconds()]]) {
      t.match(await of({ auth_time }), { ...refused, reason: 'jwt_auth_age' }, JSON.stringify(auth_time))
    }
    t.match(await of({ scope: 'write', acr: 'silver' }), { status: 403 }, 'another login would not help')
  })
}

t.test('a remembered token whose login has become too old is refused', async (t) => {
  const real = Date.now
  t.teardown(() => {
    Date.now = real
  })
  const { send } = await gatewayWith(t, { maxAuthAge: '1m', clockSkew: 0 })
  const text = token(claims({ auth_time: seconds() }))
  t.match(await send(text), { status: 200 })
  Date.now = () => real() + 62_000
  const refused = await send(text)
  t.match(refused, { status: 401, reason: 'jwt_auth_age', challenge: /max_age="60"$/ })
  t.notMatch(refused.challenge, /acr_values/)
  t.match(await send(token(claims({ auth_time: seconds() }))), { status: 200 }, 'a new login is accepted')
})

t.test('a WebSocket handshake of a user who must log in again', async (t) => {
  const service = await startWebSocketService()
  t.teardown(service.close)
  const { port } = await gatewayWith(t, { acrValues: ['gold'] }, { service: service.url })
  const refused = await raw(port, handshake('/ws', [`authorization: Bearer ${token(claims())}`]))
  t.match(refused, /^HTTP\/1.1 401 [\s\S]*insufficient_user_authentication.*acr_values="gold"/)
})
