/** The counter of refusals: each bundled concern that refuses is counted by its name, its route and the code of the error. */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http from 'node:http'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../helpers/edge/tokens.ts'
import { handshake } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { connect, startEcho, startGateway } from '../helpers/gateway.ts'

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

for (const mode of ['enforce', 'shadow']) {
  t.test(
    `cors with mode: ${mode} counts preflights and handshakes that are refused, and no other requests`,
    async (t) => {
      const service = await startEcho()
      t.teardown(service.close)
      const gateway = await startGateway({
        services: { any: { instances: [service.url] } },
        edge: { cors: { origin: 'https://good.example', mode } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      })
      t.teardown(gateway.close)
      const { ask } = anyClient(t, 'HTTP/1.1', gateway.port)
      const preflight = { 'access-control-request-method': 'PUT' }
      for (const origin of ['https://good.example', 'https://bad.example']) {
        await ask('/', { headers: { origin } })
        await ask('/', { method: 'OPTIONS', headers: { origin, ...preflight } })
        const client = connect(gateway.port, handshake('/', [`Origin: ${origin}`]))
        await client.until('\r\n\r\n')
        client.socket.destroy()
      }
      const text = await gateway.server.metrics.metrics()
      const name = mode === 'shadow' ? 'shadow_refusals' : 'refusals'
      const sum = [...text.matchAll(new RegExp(`^jingwei_edge_${name}_total{concern="cors".*} (\\d+)$`, 'gm'))]
      t.strictSame(
        sum.map(([, count]) => Number(count)),
        [2]
      )
    }
  )
}

t.test('a body that arrives too slowly is counted as a refusal of its route', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const gateway = await startGateway({
    services: { any: { instances: [service.url] } },
    routes: [{ name: 'slow', match: { path: '/' }, service: 'any', edge: { bodyTimeout: '100ms' } }]
  })
  t.teardown(gateway.close)
  const request = http.request({
    port: gateway.port,
    host: '127.0.0.1',
    method: 'POST',
    headers: { 'content-length': 10 }
  })
  request.on('error', () => {}).write('x')
  const [response] = (await once(request, 'response')) as [http.IncomingMessage]
  t.equal(response.statusCode, 408)
  response.resume()
  t.match(
    await gateway.server.metrics.metrics(),
    'jingwei_edge_refusals_total{concern="body-timeout",route="slow",code="JW_BODY_TOO_SLOW"} 1'
  )
  request.destroy()
})

for (const protocol of protocols) {
  for (const mode of ['enforce', 'shadow']) {
    t.test(
      `over ${protocol}, with mode: ${mode}, clients that disconnect within the body are not refused`,
      async (t) => {
        const service = await startEcho()
        t.teardown(service.close)
        const forwardAuth = { url: `${service.url}/allow`, forwardBody: true, maxBodySize: '1kb', mode }
        const gateway = await startGateway(
          {
            listen: listenFor(t, protocol),
            services: { any: { instances: [service.url] } },
            routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { forwardAuth } }]
          },
          { log: true }
        )
        t.teardown(gateway.close)
        const { begin } = anyClient(t, protocol, gateway.port)
        const call = begin('/', { method: 'POST', streams: true })
        call.send('x')
        await eventually(() => !gateway.server.inFlight.isEmpty, 'the body is being read')
        await call.leave()
        await eventually(() => gateway.log.some(({ msg }) => msg === 'request'), 'the request has ended')
        const text = await gateway.server.metrics.metrics()
        t.notMatch(text, /^jingwei_edge_(shadow_)?refusals_total\{.* [1-9]/m)
        t.notOk(gateway.log.find(({ level }) => level === 50 || level === 'error'))
      }
    )
  }
}
