// Rules for the headers that services get.
import { once } from 'node:events'
import http2 from 'node:http2'
import { json } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../../helpers/edge/tokens.ts'
import type { Seen } from '../../../helpers/gateway.ts'
import { ask, connect, gatewayBefore, raw, startEcho, startGateway } from '../../../helpers/gateway.ts'
import { selfSigned } from '../../../helpers/self-signed.ts'

const echo = await startEcho()
t.teardown(echo.close)
const { cert, key } = selfSigned(t)
const bearer = (more = {}) => `Authorization: Bearer ${token(claims(more))}`

const gatewayWith = (t: Test, request: object, edge: object = {}, more: object = {}) =>
  gatewayBefore(t, echo.url, { edge: { ...edge, headers: { request } }, ...more })

/** Values of a header at the service, in all spellings, with the names as sent. */
const sent = ({ rawHeaders }: Pick<Seen, 'rawHeaders'>, name: string): string[] =>
  rawHeaders.flatMap((each, index) =>
    index % 2 === 0 && each.toLowerCase().replaceAll(/[_.]/g, '-') === name ? [`${each}: ${rawHeaders[index + 1]}`] : []
  )

t.test('set replaces every spelling, add keeps what there is, append adds a field', async (t) => {
  const { port } = await gatewayWith(t, {
    set: { 'X-Tenant': 'acme', 'x-two': ['a', 'b'] },
    add: { 'x-lang': 'en', 'x-new': 'yes' },
    append: { 'x-hop': 'gateway' }
  })
  const seen = await ask(port, '/', ['x_tenant: evil', 'X-TENANT: evil', 'x-lang: de', 'x-hop: client', 'x-other: 1'])
  t.strictSame(sent(seen, 'x-tenant'), ['x-tenant: acme'])
  t.strictSame(sent(seen, 'x-two'), ['x-two: a', 'x-two: b'])
  t.strictSame(sent(seen, 'x-lang'), ['x-lang: de'])
  t.strictSame(sent(seen, 'x-new'), ['x-new: yes'])
  t.strictSame(sent(seen, 'x-hop'), ['x-hop: client', 'x-hop: gateway'])
  t.strictSame(sent(seen, 'x-other'), ['x-other: 1'])
})

t.test('remove takes every spelling, rename moves all values', async (t) => {
  const { port } = await gatewayWith(t, {
    remove: ['x-debug', 'user-agent'],
    rename: { 'x-old': 'x-new', 'x-none': 'x-kept' }
  })
  const headers = ['x_debug: 1', 'X.Debug: 2', 'User-Agent: me', 'x-old: 1', 'X_Old: 2', 'x-new: mine', 'x-kept: 3']
  const seen = await ask(port, '/', headers)
  t.strictSame(sent(seen, 'x-debug'), [])
  t.strictSame(sent(seen, 'user-agent'), [])
  t.strictSame(sent(seen, 'x-old'), [])
  t.strictSame(sent(seen, 'x-new'), ['x-new: 1', 'x-new: 2'])
  t.strictSame(sent(seen, 'x-kept'), ['x-kept: 3'], 'nothing replaces a header if there is nothing to rename')
})

t.test('the operations run in their order', async (t) => {
  for (const [request, fields, expected] of [
    [{ rename: { 'x-a': 'x-b' }, set: { 'X-B': 'mine' } }, ['x-a: evil', 'x_b: evil'], { a: [], b: ['x-b: mine'] }],
    [{ rename: { 'x-a': 'x-b' }, set: { 'x-a': 'mine' } }, ['x-a: 1', 'x-b: 2'], { a: ['x-a: mine'], b: ['x-b: 1'] }],
    [
      { rename: { 'x-a': 'x-b' }, append: { 'x-b': 'mine' } },
      ['x-a: 1', 'x-b: 2'],
      { a: [], b: ['x-b: 1', 'x-b: mine'] }
    ],
    [{ only: ['x-b'], rename: { 'x-a': 'x-b' } }, ['x-a: 1', 'x-b: 2'], { a: [], b: ['x-b: 2'] }],
    [{ only: ['x-a'], rename: { 'x-a': 'x-b' } }, ['x-a: 1', 'x-b: 2'], { a: [], b: ['x-b: 1'] }],
    [{ only: ['x-b'], rename: { 'content-type': 'x-b' } }, ['content-type: t', 'x-b: 2'], { a: [], b: ['x-b: t'] }],
    [{ remove: ['x_a'], rename: { 'x-a': 'x-b' } }, ['x-a: 1', 'x-b: 2'], { a: [], b: ['x-b: 2'] }]
  ] as const) {
    const { port } = await gatewayWith(t, request)
    const seen = await ask(port, '/', [...fields])
    t.strictSame({ a: sent(seen, 'x-a'), b: sent(seen, 'x-b') }, expected, JSON.stringify(request))
  }
})

t.test('only passes the listed headers, and those that describe the body', async (t) => {
  const { port } = await gatewayWith(t, { only: ['Accept'], set: { 'x-set': '1' } })
  const { until } = connect(
    port,
    'POST / HTTP/1.1\r\nHost: h\r\nAccept: a\r\nX-Secret: 1\r\nCookie: a=b\r\nContent-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi'
  )
  const text = await until('"body":"hi"')
  const names = Object.keys(JSON.parse(text.slice(text.indexOf('{'))).headers)
  t.strictSame(names.filter((name) => !/^(x-forwarded-|via$|x-request-id$|connection$)/.test(name)).sort(), [
    'accept',
    'content-length',
    'content-type',
    'host',
    'x-set'
  ])
})

t.test('values are templates', async (t) => {
  const service = { any: { instances: [echo.url] } }
  const set = {
    'x-method': '{request.method} {request.scheme}://{request.host}{request.path}',
    'x-ip': '{request.ip}',
    'x-id': '{request.id}',
    'x-param': '{params.id}',
    'x-query': '{query.page|1}-{query.none|none}',
    'x-list': '{query.tag}',
    'x-header': '<{headers.accept}>',
    'x-cookie': '{cookies.session}',
    'x-user': '{consumer.id}',
    'x-roles': '{claims/realm_access/roles}',
    'x-braces': '{{a}}',
    'x-missing': 'a {query.none} b'
  }
  const { port, close } = await startGateway({
    services: service,
    edge: { jwt: { secret } },
    routes: [{ name: 'all', match: { path: '/users/:id' }, service: 'any', edge: { headers: { request: { set } } } }]
  })
  t.teardown(close)
  const fields = [
    bearer({ realm_access: { roles: ['a', 'b,c'] } }),
    'Accept: text/plain',
    'Cookie: x=1; session=s3; y=2'
  ]
  const { headers } = await ask(port, '/users/%C3%A9?page=7&tag=a&tag=b', [...fields, 'x-missing: forged'])
  t.match(headers, {
    'x-method': 'GET http://h/users/%C3%A9',
    'x-ip': '127.0.0.1',
    'x-id': headers['x-request-id'],
    'x-param': '%C3%A9',
    'x-query': '7-none',
    'x-list': 'a,b',
    'x-header': '<text/plain>',
    'x-cookie': 's3',
    'x-user': 'ann',
    'x-roles': 'a,b%2Cc',
    'x-braces': '{a}'
  })
  t.notOk('x-missing' in headers, 'a value with a missing reference is left out, and the copy of the client, too')
})

t.test('no value can add a header or a request', async (t) => {
  const { port } = await gatewayWith(
    t,
    {
      set: { 'x-q': 'q={query.q}', 'x-c': '{claims/name|none}', 'x-h': '{headers.x-latin}' }
    },
    { jwt: { secret } }
  )
  const seen = await ask(port, '/?q=a%0d%0aX-Evil:%201%00%E5%81%A5', [
    bearer({ name: 'a\r\nx-evil: 1\r\n\r\nGET /evil HTTP/1.1' }),
    'x-latin: caf\xe9'
  ])
  t.notOk('x-evil' in seen.headers)
  t.equal(seen.headers['x-q'], 'q=a%0D%0AX-Evil%3A%201%00%E5%81%A5')
  t.equal(seen.headers['x-c'], encodeURIComponent('a\r\nx-evil: 1\r\n\r\nGET /evil HTTP/1.1'))
  t.equal(seen.headers['x-h'], 'caf\xe9', 'a header is taken byte for byte')
})

t.test('a value of more than 8192 characters is left out', async (t) => {
  const { port } = await gatewayWith(t, { set: { 'x-long': '{headers.x-a}{headers.x-a}' } })
  t.equal((await ask(port, '/', [`x-a: ${'a'.repeat(4096)}`])).headers['x-long']?.length, 8192)
  t.notOk('x-long' in (await ask(port, '/', [`x-a: ${'a'.repeat(4097)}`])).headers)
})

t.test('a header with the caller is removed from requests on other routes to the service', async (t) => {
  const { port, close } = await startGateway({
    services: { any: { instances: [echo.url] } },
    routes: [
      {
        name: 'me',
        match: { path: '/me' },
        service: 'any',
        edge: { jwt: { secret }, headers: { request: { set: { 'x-user': '{claims/sub}', 'x-plain': 'a' } } } }
      },
      {
        name: 'open',
        match: { path: '/' },
        service: 'any',
        edge: { headers: { request: { set: { 'x-copy': '{headers.x-user}' }, add: { 'x-lang': 'en' } } } }
      }
    ]
  })
  t.teardown(close)
  const seen = await ask(port, '/', ['x_user: eve', 'x-user: eve', 'x-plain: b'])
  t.strictSame(sent(seen, 'x-user'), [])
  t.strictSame(sent(seen, 'x-copy'), [], 'such a copy is no value either')
  t.strictSame(sent(seen, 'x-plain'), ['x-plain: b'])
  t.strictSame(sent(await ask(port, '/me', [bearer(), 'x-user: eve']), 'x-user'), ['x-user: ann'])
})

t.test('rules that would let clients choose a trusted header fail the start', async (t) => {
  for (const request of [
    { rename: { 'x-mine': 'X-User' } },
    { rename: { 'x-user': 'x-mine' } },
    { set: { 'x-user': '{query.user}' } },
    { append: { 'x-user': '{headers.x-mine}' } }
  ]) {
    const config = {
      services: { any: { instances: [echo.url] } },
      routes: [
        { name: 'me', match: { path: '/me' }, service: 'any', edge: { jwt: { secret, forward: { sub: 'x-user' } } } },
        { name: 'open', match: { path: '/' }, service: 'any', edge: { headers: { request } } }
      ]
    }
    await t.rejects(startGateway(config), { message: /route open: edge.headers.request: services trust "x-user"/i })
  }
})

t.test('rules see and change the headers of earlier concerns', async (t) => {
  const { port } = await gatewayWith(
    t,
    { remove: ['x-iss'], set: { 'x-sub': 'fixed' }, add: { 'x-sub2': 'other' } },
    { jwt: { secret, forward: { sub: ['x-sub', 'x-sub2'], exp: 'x-iss' } } }
  )
  const seen = await ask(port, '/', [bearer(), 'x-sub: eve'])
  t.strictSame(sent(seen, 'x-sub'), ['x-sub: fixed'])
  t.strictSame(sent(seen, 'x-sub2'), ['x-sub2: ann'])
  t.strictSame(sent(seen, 'x-iss'), [])
})

t.test('headers of trusted proxies can be replaced and removed', async (t) => {
  const { port } = await gatewayWith(
    t,
    { set: { 'x-real-ip': '{request.ip}' }, remove: ['x-original-url'] },
    {},
    {
      listen: { trustProxy: ['127.0.0.1'], trustHeaders: ['x-forwarded-for', 'x-real-ip', 'x-original-url'] }
    }
  )
  const seen = await ask(port, '/', ['X-Real-IP: 9.9.9.9', 'X-Forwarded-For: 8.8.8.8', 'X-Original-URL: /admin'])
  t.strictSame(sent(seen, 'x-real-ip'), ['x-real-ip: 8.8.8.8'])
  t.strictSame(sent(seen, 'x-original-url'), [])
})

t.test('the same over HTTP/2, also cookies in several fields', async (t) => {
  const { port } = await gatewayWith(
    t,
    {
      set: { 'x-c': '{cookies.b}', 'x-host': '{request.host}' },
      remove: ['cookie', 'x-debug'],
      append: { 'x-a': '2' }
    },
    {},
    { listen: { tls: { cert, key }, http2: true } }
  )
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({
    ':path': '/',
    cookie: ['a=1', 'b=2'] as never,
    'x-debug': '1',
    x_debug: '2',
    'x-a': '1'
  })
  await once(stream, 'response')
  const seen = (await json(stream)) as Seen
  t.strictSame(sent(seen, 'cookie'), [])
  t.strictSame(sent(seen, 'x-debug'), [])
  t.strictSame(sent(seen, 'x-a'), ['x-a: 1', 'x-a: 2'])
  t.strictSame(sent(seen, 'x-c'), ['x-c: 2'])
  t.strictSame(sent(seen, 'x-host'), [`x-host: localhost:${port}`])
})

t.test('a WebSocket handshake gets its headers by the same rules', async (t) => {
  const { port } = await gatewayWith(t, { only: ['origin'], set: { 'x-set': '1' } })
  const fields = [
    'Connection: Upgrade',
    'Upgrade: websocket',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
  ]
  const text = await raw(port, `GET / HTTP/1.1\r\nHost: h\r\n${fields.join('\r\n')}\r\nX-Secret: 1\r\n\r\n`)
  const { headers } = JSON.parse(/\{.*\}/s.exec(text)![0]) as Seen
  t.match(headers, { 'sec-websocket-version': '13', 'sec-websocket-key': /==$/, 'x-set': '1', 'x-secret': undefined })
})

t.test('headers of plugins: routes via http-proxy, and own routes', async (t) => {
  const { port, close } = await startGateway({
    edge: { headers: { request: { remove: ['x-secret'], set: { 'x-set': '{request.method}' } } } },
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', via: 'http-proxy' }]
  })
  t.teardown(close)
  const seen = await ask(port, '/', ['X-Secret: 1', 'x_secret: 2', 'x-set: evil'])
  t.strictSame(sent(seen, 'x-secret'), [])
  t.strictSame(sent(seen, 'x-set'), ['x-set: GET'])
})
