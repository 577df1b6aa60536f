/** The counter of refusals: each bundled concern that refuses is counted by its name, its route and the code of the error. */
import { createHash } from 'node:crypto'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../helpers/edge/tokens.ts'
import { startEcho, startGateway } from '../helpers/gateway.ts'

const authorization = `Bearer ${token(claims())}`
const hash = `sha256:${createHash('sha256').update('a key').digest('hex')}`
const consumer = { name: 'alice', keyAuth: { hash }, jwt: { sub: 'alice' } }
const denied = [{ action: 'deny', methods: ['POST'] }]

/** One route for each concern: its options, the headers of the request, and the code of the refusal. */
const cases: readonly (readonly [concern: string, edge: object, headers: Record<string, string>, code: string])[] = [
  ['jwt', { jwt: { secret } }, {}, 'JW_TOKEN_MISSING'],
  ['key-auth', { keyAuth: {} }, { 'x-api-key': 'wrong' }, 'JW_KEY_INVALID'],
  ['ip-filter', { ipFilter: { allow: ['10.0.0.0/8'] } }, {}, 'JW_ADDRESS_DENIED'],
  ['acl', { jwt: { secret }, acl: { allow: ['staff'] } }, { authorization }, 'JW_ACCESS_DENIED'],
  ['authorization', { authorization: { default: 'allow', rules: denied } }, {}, 'JW_REQUEST_DENIED'],
  ['rate-limit', { rateLimit: { max: 1, window: '1h', by: 'header:x-a' } }, { 'x-a': '1' }, 'JW_RATE_LIMITED'],
  ['graphql', { graphql: {} }, { 'content-type': 'text/plain' }, 'JW_GRAPHQL_TYPE'],
  ['body-limit', { bodyLimit: '1b' }, {}, 'JW_BODY_TOO_LARGE']
]

for (const protocol of protocols) {
  t.test(`over ${protocol}, refusals are counted by concern, route and code; allowed requests are not`, async (t) => {
    const service = await startEcho()
    t.teardown(service.close)
    const gateway = await startGateway({
      listen: listenFor(t, protocol),
      consumers: [consumer],
      services: { any: { instances: [service.url] } },
      routes: [
        ...cases.map(([concern, edge]) => ({ name: concern, match: { path: `/${concern}` }, service: 'any', edge })),
        { name: 'allowed', match: { path: '/' }, service: 'any', edge: { jwt: { secret }, bodyLimit: '1kb' } }
      ]
    })
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    await ask('/rate-limit', { headers: { 'x-a': '1' } })
    for (const [concern, , headers] of cases) {
      const { status } = await ask(`/${concern}`, { method: 'POST', headers, body: '{"query":"{a}"}' })
      t.ok(status >= 400 && status < 500, `${concern}: ${status}`)
    }
    t.equal((await ask('/', { headers: { authorization } })).status, 200)
    const text = await gateway.server.metrics.metrics()
    const series = text.split('\n').filter((line) => line.startsWith('jingwei_edge_refusals_total{'))
    t.strictSame(
      series.toSorted(),
      cases
        .map(([name, , , code]) => `jingwei_edge_refusals_total{concern="${name}",route="${name}",code="${code}"} 1`)
        .toSorted()
    )
  })
}

/** Several methods on a route: what they are, the headers of the request, and the concern and code of the refusal. */
const several: readonly (readonly [edge: object, headers: Record<string, string>, concern: string, code: string])[] = [
  [{ keyAuth: {}, jwt: { secret } }, { 'x-api-key': 'wrong' }, 'key-auth', 'JW_KEY_INVALID'],
  [{ keyAuth: {}, jwt: { secret } }, { authorization: 'Bearer forged' }, 'jwt', 'JW_TOKEN_INVALID'],
  [{ keyAuth: {}, jwt: { secret } }, {}, 'authentication', 'JW_CREDENTIALS_MISSING'],
  [
    {
      introspection: { url: 'http://127.0.0.1:1/', clientId: 'a', clientSecret: 'b' },
      oidc: { issuer: 'https://127.0.0.1:1', clientId: 'a' }
    },
    { authorization: 'Bearer a' },
    'introspection',
    'JW_AUTH_UNAVAILABLE'
  ],
  [
    { keyAuth: {}, jwt: { secret, mode: 'shadow' }, rateLimit: { max: 1, window: '1h' } },
    { 'x-api-key': 'a key' },
    'rate-limit',
    'JW_RATE_LIMITED'
  ]
]

t.test('with several methods, a refusal counts for the one that has refused the credentials', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const session = { secrets: ['s'.repeat(32)] }
  const gateway = await startGateway({
    consumers: [consumer],
    services: { any: { instances: [service.url] } },
    routes: several.map(([edge], index) => ({
      name: `r${index}`,
      match: { path: `/r${index}` },
      service: 'any',
      edge: {
        ...edge,
        ...('oidc' in edge && { oidc: { ...(edge.oidc as object), session } }),
        authentication: { require: 'any' }
      }
    }))
  })
  t.teardown(gateway.close)
  const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
  await ask('/r4', { headers: { 'x-api-key': 'a key' } })
  for (const [index, [, headers]] of several.entries()) {
    const { status } = await ask(`/r${index}`, { headers })
    t.ok(status >= 400, `${index}: ${status}`)
  }
  const text = await gateway.server.metrics.metrics()
  const series = text.split('\n').filter((line) => line.startsWith('jingwei_edge_refusals_total{'))
  t.strictSame(
    series.toSorted(),
    several
      .map(
        ([, , name, code], index) => `jingwei_edge_refusals_total{concern="${name}",route="r${index}",code="${code}"} 1`
      )
      .toSorted()
  )
})
