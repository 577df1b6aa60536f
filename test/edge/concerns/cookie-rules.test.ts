// Rules for cookies: those that services get, and those that they set.
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import http2 from 'node:http2'
import { json } from 'node:stream/consumers'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { ask, configOf, gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const echo = await startEcho()
t.teardown(echo.close)
const { cert, key } = selfSigned(t)

const asking = async (t: Test, request: object, more: object = {}) => {
  const { port } = await gatewayBefore(t, echo.url, { edge: { ...more, cookies: { request } } })
  return async (...fields: string[]) => {
    const { rawHeaders } = await ask(port, '/', fields)
    return rawHeaders.filter((_, index) => index % 2 === 1 && /^cookie$/i.test(rawHeaders[index - 1]!))
  }
}

t.test('each operation on the cookies of a request', async (t) => {
  for (const [request, sent, expected] of [
    [{ remove: ['a'] }, ['Cookie: a=1; b="x y"; a=2;c', 'Cookie: a=3; d=4'], ['b="x y"; c; d=4']],
    [{ remove: ['a'] }, ['Cookie: a=1'], []],
    [{ remove: ['a'] }, [], []],
    [{ only: ['b'] }, ['Cookie: a=1; b=2; B=3'], ['b=2']],
    [{ rename: { a: 'b' } }, ['Cookie: a=1=2; b=0; c=3'], ['b=1=2; c=3']],
    [{ rename: { a: 'b' }, set: { b: '1' } }, ['Cookie: a=evil; b=2; c=3'], ['c=3; b=1']],
    [{ rename: { a: 'b' }, set: { a: '1' } }, ['Cookie: a=0; b=2'], ['b=0; a=1']],
    [{ only: ['b'], rename: { a: 'b' } }, ['Cookie: a=0; b=2'], ['b=2']],
    [{ remove: ['a'], rename: { a: 'b' } }, ['Cookie: a=0; b=2'], ['b=2']],
    [{ set: { a: '1' }, add: { b: '2', c: '3' } }, ['Cookie: a=0; b=0'], ['b=0; a=1; c=3']],
    [{ set: { a: '{headers.x-a|none}' } }, [], ['a=none']],
    [{ set: { a: '{headers.x-a}' } }, ['x-a: a%20b'], ['a=a%20b']],
    [{ set: { a: '{headers.x-a}' } }, ['x-a: 1; admin=1,"'], ['a=1%3B%20admin%3D1%2C%22']],
    [{ set: { a: '{query.none}' } }, ['Cookie: a=0; b=1'], ['b=1']]
  ] as const) {
    const cookies = await asking(t, request)
    t.strictSame(await cookies(...sent), expected, JSON.stringify(request))
  }
})

t.test('with rules for headers, a caller, and over HTTP/2', async (t) => {
  const edge = { jwt: { secret }, headers: { request: { only: ['x-a'], set: { 'x-c': '{cookies.a}' } } } }
  const bearer = `Authorization: Bearer ${token(claims())}`
  const { port } = await gatewayBefore(t, echo.url, {
    edge: { ...edge, cookies: { request: { set: { user: '{claims/sub}' } } } },
    listen: { tls: { cert, key }, http2: true }
  })
  const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const stream = session.request({
    ':path': '/',
    authorization: bearer.slice(15),
    cookie: ['a=1', 'user=eve'] as never
  })
  await once(stream, 'response')
  const { headers } = (await json(stream)) as Seen
  t.match(headers, { cookie: 'user=ann', 'x-c': '1' }, '`only` without `cookie` removes those of the client')
})

t.test('cookies of two callers are never alike', async (t) => {
  const cookies = await asking(t, { set: { user: '{claims/sub}' } }, { jwt: { secret } })
  const of = async (sub: string) => (await cookies(`Authorization: Bearer ${token(claims({ sub }))}`))[0]
  t.equal(await of('张'), 'user=%E5%BC%A0')
  t.equal(await of('%E5%BC%A0'), 'user=%25E5%25BC%25A0')
  t.equal(await of('50%'), 'user=50%')
})

t.test('via http-proxy', async (t) => {
  const { port } = await gatewayBefore(t, echo.url, {
    edge: { cookies: { request: { remove: ['a'], set: { b: '1' } } } },
    services: { any: { instances: [echo.url] } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any', via: 'http-proxy' }]
  })
  t.equal((await ask(port, '/', ['Cookie: a=1; c=2'])).headers.cookie, 'c=2; b=1')
})

const service = await startService((_request, response) => {
  response.setHeader('set-cookie', [
    'a="x=1"; Path=/; Domain=internal; secure; Max-Age=5; SameSite=None',
    'b=2; HttpOnly',
    'debug=1',
    '__Host-c=3; Secure; Path=/'
  ])
  response.end('ok')
})
t.teardown(service.close)

for (const [response, expected] of [
  [
    { remove: ['debug', '__Host-c'] },
    ['a="x=1"; Path=/; Domain=internal; secure; Max-Age=5; SameSite=None', 'b=2; HttpOnly']
  ],
  [
    { remove: ['debug'], domain: 'example.com', path: '/shop', sameSite: 'Lax', secure: true, httpOnly: true },
    [
      'a="x=1"; Max-Age=5; Domain=example.com; Path=/shop; SameSite=Lax; Secure; HttpOnly',
      'b=2; Domain=example.com; Path=/shop; SameSite=Lax; Secure; HttpOnly',
      '__Host-c=3; Path=/; SameSite=Lax; Secure; HttpOnly'
    ]
  ],
  [
    { names: ['a', '__Host-c'], domain: false, secure: false },
    ['a="x=1"; Path=/; Max-Age=5; SameSite=None', 'b=2; HttpOnly', 'debug=1', '__Host-c=3; Secure; Path=/']
  ],
  [{ remove: ['a', 'b', 'debug', '__Host-c'] }, undefined]
] as const) {
  t.test(`cookies of a response: ${JSON.stringify(response)}`, async (t) => {
    for (const responsePath of ['raw', 'reply']) {
      const edge = { cookies: { response }, responsePath }
      const { port } = await gatewayBefore(t, service.url, { edge })
      t.equal((await get(port, '/')).headers['set-cookie'], expected?.join('\n'))
    }
    const listen = { tls: { cert, key }, http2: true }
    const { port } = await gatewayBefore(t, service.url, { edge: { cookies: { response } }, listen })
    const session = http2.connect(`https://localhost:${port}`, { rejectUnauthorized: false })
    t.teardown(() => session.destroy())
    const [headers] = (await once(session.request({ ':path': '/' }), 'response')) as [IncomingHttpHeaders]
    t.strictSame(headers['set-cookie'], expected)
  })
}

t.test('cookies of a response, together with rules for headers', async (t) => {
  const { url, close } = await startService((_request, response) => {
    response.setHeader('set-cookie', ['s=1', 'debug=1']).end()
  })
  t.teardown(close)
  const cookies = { response: { remove: ['debug'], secure: true } }
  for (const [response, expected] of [
    [{ append: { 'set-cookie': 'gw=1' } }, ['s=1; Secure', 'gw=1']],
    [{ add: { 'set-cookie': 'gw=1' } }, ['s=1; Secure']],
    [{ set: { 'set-cookie': 'gw=1' } }, ['gw=1']],
    [{ rename: { 'set-cookie': 'x-cookies' } }, []],
    [{ only: ['set-cookie'] }, ['s=1; Secure']],
    [{ only: ['x-a'] }, []]
  ] as const) {
    for (const responsePath of ['raw', 'reply'] as const) {
      const { port } = await gatewayBefore(t, url, { edge: { cookies, headers: { response }, responsePath } })
      const { headers } = await get(port, '/')
      t.equal(headers['set-cookie'], expected.join('\n') || undefined, `${responsePath}: ${JSON.stringify(response)}`)
    }
  }
})

t.test('faults', async (t) => {
  const fault = (cookies: object) => configOf({ edge: { cookies }, services: {}, routes: [] })
  for (const [cookies, message] of [
    [{}, /edge.cookies/],
    [{ request: { set: { 'a b': '1' } } }, /not the name of a cookie/],
    [{ request: { set: { a: 'x; y' } } }, /a cookie cannot carry blanks/],
    [{ request: { add: { a: '{claims/sub|x}' } } }, /write it under "set"/],
    [{ response: { names: ['a'] } }, /changes nothing/],
    [{ response: { path: '/a;b' } }, /printable ASCII without ;/]
  ] as const) {
    t.throws(() => fault(cookies), message)
  }
})
