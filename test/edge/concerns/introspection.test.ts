// slow: takes about 8 s
import type { IncomingHttpHeaders, RequestListener } from 'node:http'
import type { Test } from 'tap'
import t from 'tap'
import type { Protocol } from '../../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { echo, handshake, opcodes, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { connect, get, raw, startEcho, startGateway, startRawService, startService } from '../../helpers/gateway.ts'

interface Asked {
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly form: Record<string, string>
}

type Respond = (token: string, response: Parameters<RequestListener>[1]) => void

/** An introspection endpoint, and the calls that it got. */
async function endpoint(t: Test, respond: Respond) {
  const asked: Asked[] = []
  const state = { respond }
  const server = await startService((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const form = Object.fromEntries(new URLSearchParams(Buffer.concat(chunks).toString()))
      asked.push({ url: `${request.method} ${request.url}`, headers: request.headers, form })
      state.respond(form.token ?? '', response)
    })
  })
  t.teardown(server.close)
  return { url: server.url, asked, state }
}

/** Responds with the claims of known tokens; other tokens are inactive. */
const knowing =
  (known: Record<string, object>): Respond =>
  (token, response) =>
    void response.end(
      JSON.stringify(known[token] === undefined ? { active: false } : { active: true, ...known[token] })
    )

const client = { clientId: 'gate way', clientSecret: 's:e%cret' }

interface More {
  readonly protocol?: Protocol
  readonly service?: string
  readonly services?: object
  readonly edge?: object
  readonly consumers?: readonly object[]
  readonly mesh?: false
  readonly listen?: object
}

async function guarded(
  t: Test,
  options: object,
  { protocol = 'HTTP/1.1', service, services, edge, listen, ...more }: More = {}
) {
  let behind = service
  if (behind === undefined) {
    const echo = await startEcho()
    t.teardown(echo.close)
    behind = echo.url
  }
  const introspection = { ...client, ...options }
  const gateway = await startGateway(
    {
      listen: { ...listenFor(t, protocol), ...listen },
      services: { any: { instances: [behind] }, ...services },
      ...more,
      routes: [
        { name: 'guarded', match: { path: '/' }, service: 'any', edge: { introspection, ...edge } },
        {
          name: 'scoped',
          match: { path: '/scoped' },
          service: 'any',
          edge: { introspection: { ...introspection, scopes: ['read', 'write'] } }
        },
        { name: 'open', match: { path: '/open' }, service: 'any' }
      ]
    },
    { log: true }
  )
  t.teardown(gateway.close)
  const { ask } = anyClient(t, protocol, gateway.port)
  const line = async (index = 0) => {
    const lines = () => gateway.log.filter(({ msg }) => msg === 'request')
    await eventually(() => lines().length > index)
    return lines()[index]
  }
  const bearing = (token: string, path = '/', method = 'GET') =>
    ask(path, { method, headers: { authorization: `Bearer ${token}` } })
  return { ...gateway, any: ask, bearing, line, metrics: () => gateway.server.metrics.metrics() }
}

for (const protocol of protocols) {
  t.test(`active tokens pass, others get 401, over ${protocol}`, async (t) => {
    const exp = Math.floor(Date.now() / 1000) + 3600
    const { url, asked } = await endpoint(
      t,
      knowing({
        amy: { sub: 'u-1', scope: 'read write', exp, realm: { roles: ['a', 'b'] } },
        bob: { sub: 'bob', scope: 'read' }
      })
    )
    const { any, bearing, line, metrics } = await guarded(
      t,
      { url: `${url}/introspect`, forward: { sub: 'x-user', 'realm.roles': 'x-roles' } },
      { protocol, consumers: [{ name: 'alice', groups: ['gold'], introspection: 'u-1' }] }
    )
    const passed = await any('/', { headers: { authorization: 'bearer amy', 'x-user': 'forged', x_roles: 'forged' } })
    const seen = JSON.parse(passed.body.toString()) as Seen
    t.match(seen.headers, { 'x-user': 'u-1', 'x-roles': 'a,b', authorization: 'bearer amy' })
    t.notOk(seen.headers.x_roles)
    t.match(await line(), { consumer: 'alice', status: 200 })
    t.match(asked[0], {
      url: 'POST /introspect',
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
      form: { token: 'amy', token_type_hint: 'access_token' }
    })
    const [, userinfo = ''] = String(asked[0]?.headers.authorization).split(' ')
    t.equal(Buffer.from(userinfo, 'base64').toString(), 'gate+way:s%3Ae%25cret')
    t.equal((await bearing('amy', '/other', 'POST')).status, 200)
    t.equal(asked.length, 1, 'the response is cached')

    const missing = await any('/')
    t.match(missing, { status: 401, headers: { 'www-authenticate': 'Bearer realm="jingwei"' } })
    t.match(JSON.parse(missing.body.toString()), { code: 'JW_TOKEN_MISSING' })
    const inactive = await bearing('eve')
    const challenge = 'Bearer realm="jingwei", error="invalid_token", error_description="The token is not valid"'
    t.match(inactive, { status: 401, headers: { 'www-authenticate': challenge }, isWhole: true })
    t.equal((await bearing('eve', '/', 'HEAD')).status, 401)
    t.equal((await bearing('eve', '/', 'OPTIONS')).status, 401)
    t.equal(asked.length, 2, 'an inactive token is asked for once')
    t.match(await line(3), { error: 'JW_TOKEN_INVALID', reason: 'introspection_inactive' })

    t.equal((await bearing('amy', '/scoped')).status, 200, 'routes with the same endpoint share its responses')
    t.equal(asked.length, 2)
    const scoped = await bearing('bob', '/scoped')
    t.match(scoped, { status: 403, headers: { 'www-authenticate': /error="insufficient_scope".*scope="read write"/ } })
    t.match(JSON.parse(scoped.body.toString()), { code: 'JW_INSUFFICIENT_SCOPE' })
    t.equal((await any('/open', { headers: { 'x-user': 'forged' } })).body.includes('forged'), false)
    t.match(await metrics(), 'jingwei_edge_introspection_requests_total{route="guarded",result="cached"} 3')
    t.match(await metrics(), 'jingwei_edge_introspection_requests_total{route="guarded",result="active"} 1')
  })
}

t.test('a WebSocket handshake needs an active token', async (t) => {
  const { url } = await endpoint(t, knowing({ amy: { sub: 'amy' } }))
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const { port } = await guarded(t, { url, forward: { sub: 'x-user' } }, { service: service.url })
  const refused = connect(port, handshake('/', ['Authorization: Bearer eve']))
  t.match(await refused.until('JW_TOKEN_INVALID'), /^HTTP\/1\.1 401 /)
  refused.socket.destroy()
  const { peer } = await open(port, '/', ['Authorization: Bearer amy', 'X-User: eve'])
  peer.send(opcodes.text, 'hello')
  t.equal((await peer.frame(0)).payload.toString(), 'hello')
  t.equal(service.requests[0]?.headers['x-user'], 'amy')
  peer.socket.destroy()
})

t.test('the endpoint can be a service of the mesh, with credentials in the body', async (t) => {
  const { url, asked } = await endpoint(t, knowing({ amy: { sub: 'amy' } }))
  for (const mesh of [{}, { mesh: false as const }]) {
    const options = { service: 'idp', path: '/check?a', clientAuth: 'post' }
    const { bearing } = await guarded(t, options, { services: { idp: { instances: [url] } }, ...mesh })
    t.equal((await bearing('amy')).status, 200)
    t.match(asked.at(-1), { url: 'POST /check?a', form: { client_id: 'gate way', client_secret: 's:e%cret' } })
    t.notOk(asked.at(-1)?.headers.authorization)
  }
})

t.test('tokens in odd spellings and positions are refused without a call', async (t) => {
  const { url, asked } = await endpoint(t, (_token, response) => void response.end('{"active":true,"sub":"a"}'))
  const { port, line } = await guarded(t, { url, maxTokenSize: '16b' })
  const cases: readonly (readonly [string[], string, string])[] = [
    [['Authorization: Basic YTpi'], 'JW_TOKEN_MISSING', 'introspection_missing'],
    [['Authorization: Bearer'], 'JW_TOKEN_MISSING', 'introspection_missing'],
    [['x_authorization: Bearer a', 'Cookie: access_token=a'], 'JW_TOKEN_MISSING', 'introspection_missing'],
    [['Authorization: Bearer a b'], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer a,Bearer b'], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer a&token=b'], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer \xe9'], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer ='], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer 0123456789abcdefg'], 'JW_TOKEN_INVALID', 'introspection_token'],
    [['Authorization: Bearer a', 'authorization: Bearer b'], 'JW_TOKEN_INVALID', 'introspection_repeated']
  ]
  for (const [index, [headers, code, reason]] of cases.entries()) {
    const { status, body } = await get(port, '/', headers)
    t.match({ status, body: JSON.parse(body) }, { status: 401, body: { code } }, String(headers))
    t.match(await line(index), { reason }, String(headers))
  }
  t.equal((await get(port, '/?access_token=a', [])).status, 401)
  t.equal(asked.length, 0)
  for (const headers of ['Authorization: BEARER 0123456789abcdef', 'Authorization: Bearer   a.-_~+/=  ']) {
    t.equal((await get(port, '/', [headers])).status, 200, headers)
  }
  t.strictSame(
    asked.map(({ form }) => form.token),
    ['0123456789abcdef', 'a.-_~+/=']
  )
})

t.test('claims have to fit the route', async (t) => {
  const seconds = Math.floor(Date.now() / 1000)
  const fitting = { iss: 'https://id', aud: ['x', 'api'] }
  const cases: readonly (readonly [object, string | null])[] = [
    [fitting, null],
    [{ ...fitting, aud: 'api', token_type: 'Bearer', exp: seconds + 60, nbf: seconds }, null],
    [{ ...fitting, exp: seconds - 60 }, 'introspection_expired'],
    [{ ...fitting, exp: 'soon' }, 'introspection_expired'],
    [{ ...fitting, nbf: seconds + 60 }, 'introspection_not_yet_valid'],
    [{ ...fitting, iss: 'https://evil' }, 'introspection_issuer'],
    [{ aud: 'api' }, 'introspection_issuer'],
    [{ iss: 'https://id' }, 'introspection_audience'],
    [{ ...fitting, aud: ['ap'] }, 'introspection_audience'],
    [{ ...fitting, aud: { api: true } }, 'introspection_audience'],
    [{ ...fitting, token_type: 'refresh_token' }, 'introspection_type'],
    [{ ...fitting, token_type: 'DPoP' }, 'introspection_type'],
    [{ ...fitting, token_use: 'refresh_token' }, 'introspection_type'],
    [{ ...fitting, typ: 'Refresh' }, 'introspection_type']
  ]
  const { url } = await endpoint(
    t,
    (token, response) => void response.end(JSON.stringify({ active: true, ...cases[Number(token)]![0] }))
  )
  const { bearing, line } = await guarded(t, { url, issuer: 'https://id', audience: ['api', 'web'] })
  for (const [index, [, reason]] of cases.entries()) {
    t.equal((await bearing(String(index))).status, reason === null ? 200 : 401, String(index))
    if (reason !== null) t.match(await line(index), { reason })
  }
})

t.test('an endpoint that gives no valid response lets nobody in, for a bounded time', async (t) => {
  const ok = 'HTTP/1.1 200 OK\r\n'
  const sized = (body: string) => `${ok}content-length: ${body.length}\r\n\r\n${body}`
  const bad: readonly (readonly [string, string | null, string])[] = [
    ['resets', null, 'unreachable'],
    ['is silent', '', 'timeout'],
    ['stops within the body', `${ok}content-length: 99\r\n\r\n{"active":true`, 'malformed'],
    ['never ends', `${ok}transfer-encoding: chunked\r\n\r\n5\r\n{"a":\r\n`, 'malformed'],
    ['sends too much', sized(`{"active":true,"a":"${'a'.repeat(70_000)}"}`), 'malformed'],
    ['sends no JSON', sized('active'), 'malformed'],
    ['sends a list', sized('[{"active":true}]'), 'malformed'],
    ['sends null', sized('null'), 'malformed'],
    ['sends a text', sized('{"active":"true"}'), 'malformed'],
    ['sends a number', sized('{"active":1}'), 'malformed'],
    ['leaves out active', sized('{"sub":"amy"}'), 'malformed'],
    ['hides active in a prototype', sized('{"__proto__":{"active":true}}'), 'malformed'],
    ['refuses the gateway', 'HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n', 'status'],
    ['redirects', 'HTTP/1.1 302 Found\r\nlocation: /active\r\ncontent-length: 0\r\n\r\n', 'status'],
    ['fails', 'HTTP/1.1 500 No\r\ncontent-length: 15\r\n\r\n{"active":true}', 'status']
  ]
  for (const [what, bytes, reason] of bad) {
    const server = await startRawService((socket) => {
      socket.once('data', () => (bytes === null ? socket.resetAndDestroy() : socket.write(bytes)))
    })
    t.teardown(server.close)
    // Longer where a part of the response has to arrive first: a busy machine must not take it for silence.
    const timeout = reason === 'timeout' ? '300ms' : '3s'
    const { bearing, line, close, metrics } = await guarded(t, { url: server.url, timeout })
    const { status, headers, body } = await bearing('amy')
    t.match({ status, headers }, { status: 503, headers: { 'retry-after': '1' } }, what)
    t.match(JSON.parse(body.toString()), { code: 'JW_AUTH_UNAVAILABLE' }, what)
    t.match(await line(), { reason: `introspection_${reason}` }, what)
    t.match(await metrics(), 'result="failed"} 1', what)
    await close()
  }
})

t.test('an endpoint that refuses the gateway is logged with advice', async (t) => {
  for (const [clientAuth, other] of [
    ['basic', 'post'],
    ['post', 'basic']
  ] as const) {
    const { url } = await endpoint(t, (_token, response) => void response.writeHead(401).end())
    const { bearing, log } = await guarded(t, { url, clientAuth })
    t.equal((await bearing('amy')).status, 503)
    const advice = `set clientAuth: ${other} if the endpoint takes client_secret_${other}`
    t.ok(log.some(({ msg }) => String(msg).includes(`status 401: the endpoint refuses the gateway; check`)))
    t.ok(log.some(({ msg }) => String(msg).endsWith(advice)))
  }
})

t.test('an endpoint that recovers is asked again, and its outage is logged once', async (t) => {
  const { url, state } = await endpoint(t, (_token, response) => void response.writeHead(500).end())
  const { bearing, log } = await guarded(t, { url })
  for (let i = 0; i < 3; i++) t.equal((await bearing('amy')).status, 503)
  state.respond = knowing({ amy: { sub: 'amy' } })
  t.equal((await bearing('amy')).status, 200)
  state.respond = (_token, response) => void response.writeHead(500).end()
  t.equal((await bearing('amy')).status, 200, 'known tokens pass during an outage')
  t.equal((await bearing('bob')).status, 503)
  // One for the first failure, one for the recovery: the next failure comes too soon after it.
  const messages = log.map(({ msg }) => String(msg)).filter((msg) => msg.startsWith('the server for authorization'))
  t.equal(messages.length, 2)
  t.notMatch(JSON.stringify(log), /s:e%cret|amy"[^}]*token/)
})

t.test('a token is asked for once at a time, and for no longer than its life', async (t) => {
  const waiting: (() => void)[] = []
  const { url, asked, state } = await endpoint(t, (_token, response) => {
    waiting.push(() => response.end('{"active":true,"sub":"amy"}'))
  })
  const { bearing, any } = await guarded(t, { url })
  const leaving = connect(
    (await guarded(t, { url })).port,
    'GET / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer gone\r\n\r\n'
  )
  await eventually(() => waiting.length === 1)
  leaving.socket.destroy()
  const all = Array.from({ length: 20 }, () => bearing('amy'))
  await eventually(() => waiting.length === 2)
  t.equal((await any('/')).status, 401)
  for (const respond of waiting) respond()
  for (const { status } of await Promise.all(all)) t.equal(status, 200)
  t.equal(asked.length, 2)

  state.respond = (token, response) => {
    const exp = Date.now() / 1000 + (token === 'short' ? 0.02 : 60)
    response.end(JSON.stringify({ active: true, exp }))
  }
  const short = await guarded(t, { url, clockSkew: '1h' })
  t.equal((await short.bearing('short')).status, 200)
  await new Promise((resolve) => setTimeout(resolve, 40))
  t.equal((await short.bearing('short')).status, 200)
  t.equal(asked.length, 4, 'asked again after exp')
  state.respond = knowing({})
  await new Promise((resolve) => setTimeout(resolve, 40))
  for (let i = 0; i < 3; i++) t.equal((await short.bearing('short')).status, 401)
  t.equal(asked.length, 5, 'a token that was active before is asked for once, like any other inactive token')
  asked.pop()
  state.respond = knowing({ long: { sub: 'long' } })
  const uncached = await guarded(t, { url, maxAge: 0, inactiveMaxAge: 0 })
  for (let i = 0; i < 2; i++) t.equal((await uncached.bearing('long')).status, 200)
  t.equal(asked.length, 6)
  state.respond = knowing({})
  for (let i = 0; i < 2; i++) t.equal((await uncached.bearing('long')).status, 401)
  t.equal(asked.length, 8)
})

t.test('a flood of random tokens neither overloads the endpoint nor evicts known tokens', async (t) => {
  let most = 0
  let active = 0
  const { url, asked } = await endpoint(t, (token, response) => {
    most = Math.max(most, ++active)
    setTimeout(() => {
      active--
      knowing({ amy: { sub: 'amy' } })(token, response)
    }, 5)
  })
  const { bearing } = await guarded(t, { url, maxConcurrent: 4, cacheSize: '1kb' })
  t.equal((await bearing('amy')).status, 200)
  const statuses = await Promise.all(Array.from({ length: 100 }, async (_, i) => (await bearing(`random-${i}`)).status))
  t.strictSame([...new Set(statuses)].sort(), [401, 503])
  t.ok(most <= 4, `${most} calls at a time`)
  const before = asked.length
  t.equal((await bearing('amy')).status, 200)
  t.equal(asked.length, before)
})

t.test('an address with random tokens leaves calls to other clients, and is refused after some failures', async (t) => {
  const waiting: (() => void)[] = []
  const { url, asked } = await endpoint(t, (token, response) => {
    waiting.push(() => knowing({ amy: { sub: 'amy' } })(token, response))
  })
  const { bearing, line, any } = await guarded(
    t,
    { url, maxConcurrent: 8 },
    { listen: { trustProxy: ['127.0.0.1'] }, edge: { authentication: { failures: { max: 7 } } } }
  )
  const other = (token: string) =>
    any('/', { headers: { authorization: `Bearer ${token}`, 'x-forwarded-for': '10.0.0.1' } })
  const flood = Array.from({ length: 20 }, (_, i) => bearing(`random-${i}`))
  t.match(await line(13), { error: 'JW_AUTH_UNAVAILABLE', reason: 'introspection_overloaded' })
  t.equal(asked.length, 6, 'a client holds at most three times as many calls as are left')
  const amy = other('amy')
  await eventually(() => asked.length === 7)
  for (const respond of waiting.splice(0)) respond()
  t.equal((await amy).status, 200)
  const counts = Map.groupBy(await Promise.all(flood), ({ status }) => status)
  t.strictSame([counts.get(401)?.length, counts.get(503)?.length], [6, 14])

  for (let i = 0; i < 5; i++) t.equal((await bearing('random-0')).status, 401, 'a cached token is no further failure')
  const [, ...last] = [bearing('eve'), bearing('eve')]
  await eventually(() => waiting.length === 1)
  for (const respond of waiting.splice(0)) respond()
  await Promise.all(last)
  const limited = await bearing('amy')
  t.match(limited, { status: 429, headers: { 'retry-after': /^\d+$/ } })
  t.match(JSON.parse(limited.body.toString()), { code: 'JW_AUTH_LIMITED' })
  t.equal((await other('amy')).status, 200)
})

t.test('in shadow mode nothing is refused', async (t) => {
  const { url } = await endpoint(t, knowing({}))
  const { bearing, any, line } = await guarded(t, { url, mode: 'shadow' })
  for (const each of [await bearing('eve'), await any('/')]) {
    t.equal(each.status, 200)
    t.notOk(each.headers['www-authenticate'])
  }
  t.match(await line(), {
    shadow: [{ concern: 'introspection', error: 'JW_TOKEN_INVALID', reason: 'introspection_inactive' }]
  })
})

t.test('Open Policy Agent gets the claims of the token, which may be in the key of its cache', async (t) => {
  const { url } = await endpoint(t, knowing({ amy: { sub: 'amy', role: 'a' }, bob: { sub: 'bob', role: 'b' } }))
  const inputs: { claims: { role: string }; consumer: { id: string } }[] = []
  const opa = await startService((request, response) => {
    let text = ''
    request.on('data', (chunk: Buffer) => {
      text += chunk.toString()
    })
    request.on('end', () => {
      const { input } = JSON.parse(text) as { input: (typeof inputs)[number] }
      inputs.push(input)
      response.end(JSON.stringify({ result: input.claims.role === 'a' }))
    })
  })
  t.teardown(opa.close)
  const cache = { ttl: '1m', key: ['claims', 'consumer'] }
  const { bearing } = await guarded(t, { url }, { edge: { forwardAuth: { url: opa.url, format: 'opa', cache } } })
  for (let i = 0; i < 2; i++) t.equal((await bearing('amy', `/${i}`)).status, 200)
  t.equal((await bearing('bob')).status, 403)
  t.strictSame(
    inputs.map(({ claims, consumer }) => [claims.role, consumer.id]),
    [
      ['a', 'amy'],
      ['b', 'bob']
    ]
  )
  t.strictSame(Object.keys(inputs[0]!).sort(), ['claims', 'consumer', 'headers'])
})

t.test('a name in a token is not that of a declared consumer by chance', async (t) => {
  const { url } = await endpoint(t, knowing({ t: { sub: 'alice', client_id: 'app' } }))
  const consumers = [{ name: 'alice' }]
  const { bearing, line } = await guarded(t, { url }, { consumers })
  await bearing('t')
  t.match(await line(), { consumer: `${url}/|alice` })
  const byClient = await guarded(t, { url, consumer: 'client_id' }, { consumers })
  await byClient.bearing('t')
  t.match(await byClient.line(), { consumer: 'app' })
})

t.test('a name in a token of one issuer is not the consumer of another one', async (t) => {
  const one = await endpoint(
    t,
    knowing({ a: { sub: 'amy', iss: 'https://one' }, b: { sub: 'amy', iss: 'https://two' } })
  )
  const consumers = [{ name: 'boss', introspection: { sub: 'amy', issuer: 'https://one' } }]
  const issuer = ['https://one', 'https://two']
  const { bearing, line } = await guarded(t, { url: one.url, issuer }, { consumers })
  await bearing('a')
  t.match(await line(), { consumer: 'boss' })
  await bearing('b')
  t.match(await line(1), { consumer: 'https://two|amy' })
})

t.test('what cannot be is a fault', async (t) => {
  const faults = async (introspection: object) => {
    try {
      const routes = [{ name: 'a', match: { path: '/' }, service: 'any', edge: { introspection } }]
      await (await startGateway({ services: { any: { instances: ['http://127.0.0.1:1'] } }, routes })).close()
      return ''
    } catch (error) {
      return (error as Error).message
    }
  }
  const good = { ...client, url: 'http://127.0.0.1:1' }
  t.equal(await faults(good), '')
  for (const [options, message] of [
    [client, /needs url or service/],
    [{ url: good.url }, /clientId/],
    [{ ...good, forward: { sub: 'via' } }, /forward\.sub.*set by the gateway itself/],
    [{ ...good, forward: { sub: 'x-a', b: 'X-A' } }, /listed twice/],
    [{ ...good, scopes: ['a b'] }, /expected a scope/]
  ] as const) {
    t.match(await faults(options), message, JSON.stringify(options))
  }
})

t.test('a route can take signed tokens and opaque ones', async (t) => {
  const { url, asked } = await endpoint(t, knowing({ opaque: { sub: 'amy', scope: 'read' } }))
  const jwt = { secret, forward: { sub: 'x-user' } }
  const both = { jwt, authentication: { require: 'any' } }
  const { bearing, any } = await guarded(t, { url, forward: { sub: 'x-user' } }, { edge: both })
  const signed = token(claims({ sub: 'bob' }))
  for (const [credentials, user] of [
    [signed, 'bob'],
    ['opaque', 'amy']
  ] as const) {
    const { status, body } = await bearing(credentials)
    t.equal(status, 200)
    const seen = JSON.parse(body.toString()) as Seen
    t.match(seen.headers, { 'x-user': user, authorization: `Bearer ${credentials}` })
  }
  t.equal(asked.length, 1, 'a token that jwt accepts is not introspected')
  t.match(await bearing('eve'), { status: 401, headers: { 'www-authenticate': /^Bearer .*, Bearer / } })
  t.match(await any('/'), { status: 401 })
  const anonymous = await guarded(t, { url }, { edge: { authentication: { anonymous: 'guest' } } })
  t.equal((await anonymous.any('/')).status, 200)
  t.match(await anonymous.line(), { consumer: 'guest' })
  t.equal((await anonymous.bearing('eve')).status, 401)
})

t.test('an HTTP/1.0 client with a token is served', async (t) => {
  const { url } = await endpoint(t, knowing({ amy: { sub: 'amy' } }))
  const { port } = await guarded(t, { url })
  t.match(await raw(port, 'GET / HTTP/1.0\r\nHost: h\r\nAuthorization: Bearer amy\r\n\r\n'), /^HTTP\/1\.1 200 /)
})
