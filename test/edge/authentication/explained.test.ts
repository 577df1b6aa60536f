/** Texts of `explain` about methods of authentication, cors and graphql: as the gateway decides, without effects. */
import { createHmac, hash } from 'node:crypto'
import t from 'tap'
import { hashOf } from '../../../plugins/edge/concerns/basic-auth/hashes.ts'
import { anyClient } from '../../helpers/edge/asking-client.ts'
import { startEcho, startGateway } from '../../helpers/gateway.ts'

const consumers = [
  {
    name: 'alice',
    keyAuth: [
      { hash: `sha256:${hash('sha256', 'key-1')}` },
      { hash: `sha256:${hash('sha256', 'key-2')}`, expires: '2020-01-01T00:00:00Z' }
    ],
    basicAuth: { username: 'al', hash: await hashOf('secret') },
    hmacAuth: { username: 'al', secret: 'the secret of alice' },
    messageSignature: { keyId: 'one', algorithm: 'hmac-sha256', secret: Buffer.alloc(32, 1).toString('base64') }
  }
]

const basic = (text: string) => ({ authorization: `Basic ${btoa(text)}` })

function hmac(secret: string, date: string): Record<string, string> {
  const mac = createHmac('sha256', secret).update(`date: ${date}\nGET /hmac HTTP/1.1`).digest('base64')
  const authorization = `hmac username="al", algorithm="hmac-sha256", headers="date request-line", signature="${mac}"`
  return { date, authorization }
}

const now = new Date().toUTCString()
const signature = { signature: 'a=:AAAA:' }
const [good, bad] = [{ origin: 'https://good.example' }, { origin: 'https://bad.example' }]
const preflight = { 'access-control-request-method': 'PUT' }
const upgrade = { connection: 'upgrade', upgrade: 'websocket' }

const rightIfSigned = 'accepts alice, if the signature is right: it is not verified here'

const unverified = 'finds a token, which is not verified here: --claims stands for its claims'

/** Concern, request, text, and the status that the gateway responds with, unless an example cannot have the credentials. */
const cases: readonly [
  concern: string,
  method: string,
  target: string,
  headers: Record<string, string>,
  text: string,
  status: number | null
][] = [
  ['key-auth', 'GET', '/key', {}, 'does not accept: key_missing', 401],
  ['key-auth', 'GET', '/key', { 'x-api-key': 'key-1' }, 'accepts alice', 200],
  ['key-auth', 'GET', '/key?k=key-1', {}, 'accepts alice', 200],
  ['key-auth', 'GET', '/key?k=key-1', { 'x-api-key': 'key-1' }, 'does not accept: key_repeated', 401],
  ['key-auth', 'GET', '/key', { 'X-Api-Key': 'key-2' }, 'does not accept: key_expired', 401],
  ['key-auth', 'GET', '/key', { 'x-api-key': 'key-3' }, 'does not accept: key_unknown', 401],
  ['basic-auth', 'GET', '/basic', {}, 'does not accept: basic_missing', 401],
  ['basic-auth', 'GET', '/basic', { authorization: 'Basic !' }, 'does not accept: basic_malformed', 401],
  ['basic-auth', 'GET', '/basic', basic('eve:secret'), 'does not accept: basic_wrong', 401],
  ['basic-auth', 'GET', '/basic', basic('al:secret'), 'accepts alice, if the password is right: it is not verified here', 200],
  ['hmac-auth', 'GET', '/hmac', {}, 'does not accept: hmac_missing', 401],
  ['hmac-auth', 'GET', '/hmac', hmac('the secret of alice', now), 'accepts alice, but for its body and its repetition, which are not checked here', 200],
  ['hmac-auth', 'GET', '/hmac', hmac('another secret', now), 'does not accept: hmac_wrong', 401],
  ['hmac-auth', 'GET', '/hmac', hmac('the secret of alice', new Date(0).toUTCString()), 'does not accept: hmac_skew', 401],
  ['message-signature', 'GET', '/signed', {}, 'does not accept: signature_missing', 401],
  ['message-signature', 'GET', '/signed', { ...signature, 'signature-input': '(' }, 'does not accept: signature_malformed', 401],
  ['message-signature', 'GET', '/signed', { ...signature, 'signature-input': 'a=();keyid="two"' }, 'does not accept: signature_key', 401],
  ['message-signature', 'GET', '/signed', { ...signature, 'signature-input': 'a=();keyid="one"' }, rightIfSigned, null],
  ['jwt', 'GET', '/jwt', {}, 'does not accept: jwt_missing', 401],
  ['jwt', 'GET', '/jwt', basic('al:secret'), 'does not accept: jwt_scheme', 401],
  ['jwt', 'GET', '/jwt?t=a', { authorization: 'Bearer b' }, 'does not accept: jwt_repeated', 401],
  ['jwt', 'GET', '/jwt', { authorization: `Bearer ${'a'.repeat(9000)}` }, 'does not accept: jwt_too_large', 401],
  ['jwt', 'GET', '/jwt?t=a', {}, unverified, 401],
  ['jwt', 'GET', '/optional', {}, 'lets in requests without a token', 200],
  ['jwt', 'GET', '/optional', { authorization: 'Bearer b' }, unverified, 401],
  ['cors', 'GET', '/cors', {}, 'allows: no Origin', 200],
  ['cors', 'GET', '/cors', good, 'allows: the origin is allowed', 200],
  ['cors', 'GET', '/cors', bad, 'allows: the origin is not allowed, so the browser withholds the response from the page', 200],
  ['cors', 'OPTIONS', '/cors', { ...good, ...preflight }, 'responds to the preflight: the origin is allowed', 204],
  ['cors', 'OPTIONS', '/cors', { ...bad, ...preflight }, 'does not grant the preflight: cors_origin', 204],
  ['cors', 'GET', '/cors', { ...bad, ...upgrade }, 'refuses the WebSocket: cors_origin', null],
  ['graphql', 'GET', '/graphql?query=%7Ba%7D', {}, 'allows', 200],
  ['graphql', 'GET', '/graphql?query=%7Ba%7Bb%7Bc%7D%7D%7D', {}, 'refuses: graphql_depth', 400],
  ['graphql', 'GET', '/graphql?query=mutation%7Ba%7D', {}, 'refuses: graphql_mutation_by_get', 405],
  ['graphql', 'PUT', '/graphql', {}, 'refuses: graphql_method', 405],
  ['graphql', 'POST', '/graphql', {}, 'decides by the body, which is not known here', null],
  ['graphql', 'GET', '/graphql', upgrade, 'refuses: graphql_upgrade', null]
] // biome-ignore format: a table

/** The concerns of the cases; others may have a text, too. */
const tested = new Set([...cases.map(([concern]) => concern), 'authentication'])

t.test('explain says of an example what the gateway would decide', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const route = (name: string, edge: object) => ({ name, match: { path: `/${name}` }, service: 'any', edge })
  const gateway = await startGateway({
    admin: { port: 0 },
    consumers,
    services: { any: { instances: [service.url] } },
    routes: [
      route('key', { keyAuth: { query: 'k' } }),
      route('basic', { basicAuth: {} }),
      route('hmac', { hmacAuth: { replayWindow: {} } }),
      route('signed', { messageSignature: {} }),
      route('jwt', { jwt: { secret: 's'.repeat(32), from: { query: 't' }, scopes: ['read'] } }),
      route('optional', { jwt: { secret: 's'.repeat(32), optional: true, scopes: ['read'] } }),
      route('cors', { cors: { origin: 'https://good.example' } }),
      route('graphql', { graphql: { maxDepth: 2 } }),
      route('any', { keyAuth: {}, basicAuth: {}, authentication: { require: 'any', anonymous: 'guest' } })
    ]
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  const explain = async (method: string, target: string, headers: Record<string, string> = {}, more = '') => {
    const query = new URLSearchParams({ method, path: target })
    for (const [name, value] of Object.entries(headers)) query.append('header', `${name}:${value}`)
    const { decisions } = (await gateway.server.admin!.inject(`/admin/explain?${query}${more}`)).json()
    return (decisions as [name: string, text: string][]).filter(([name]) => tested.has(name))
  }
  for (const [concern, method, target, headers, text, status] of cases) {
    const before = await gateway.server.metrics.metrics()
    t.strictSame(await explain(method, target, headers), [[concern, text]], `${method} ${target}`)
    const refusals = (metrics: string) => metrics.match(/^jingwei_edge_(refusals|graphql_refused).*$/gm)
    t.strictSame(refusals(await gateway.server.metrics.metrics()), refusals(before), 'nothing is counted')
    if (status !== null) t.equal((await ask(target, { method, headers })).status, status, `${method} ${target}`)
  }
  t.strictSame(await explain('GET', '/key', {}, '&consumer=alice'), [], 'the consumer stands for credentials')
  const claims = (scope: string) => `&claims=${encodeURIComponent(JSON.stringify({ scope }))}`
  t.strictSame(await explain('GET', '/jwt', {}, claims('read')), [['jwt', 'accepts the claims']])
  t.strictSame(await explain('GET', '/jwt', {}, claims('write')), [['jwt', 'refuses: jwt_scope']])
  for (const target of ['/jwt', '/optional']) t.strictSame(await explain('GET', target, {}, '&consumer=alice'), [])
  t.strictSame(await explain('GET', '/any'), [
    ['key-auth', 'does not accept: key_missing'],
    ['basic-auth', 'does not accept: basic_missing'],
    ['authentication', 'one method that accepts is enough; a request without credentials has the consumer guest']
  ])
})
