import type { Test } from 'tap'
import t from 'tap'
import { ask, get, parse, raw, startEcho, startGateway } from '../../helpers/gateway.ts'

async function routed(t: Test, routes: object[], listen: object = {}) {
  const echo = await startEcho()
  const config = {
    listen,
    services: { any: { instances: [echo.url] } },
    routes: routes.map((route) => ({ service: 'any', ...route }))
  }
  const gateway = await startGateway(config)
  t.teardown(echo.close)
  t.teardown(gateway.close)
  return gateway
}

t.test('target and query are forwarded byte for byte', async (t) => {
  const { port } = await routed(t, [{ name: 'all', match: { path: '/' } }])
  const targets = [
    '/',
    '/?',
    '/a%20b+c,d=e,f',
    '/%E6%B3%BE%e6%b8%ad',
    '/a?',
    '/a?a=1?b',
    '/a?x=%2f..%2f&y=../..&z=\\',
    '/a//b///c/',
    '//a',
    '/...',
    '/.well-known/x',
    '/a/..b/c..',
    "/~!$&'()*+,=:@",
    '/%252e%252e/%25',
    '/a%3Ab%2Cc%2B%3D',
    '/caf%E9/%ff/a%e0%a4',
    '/%C1rbol'
  ]
  for (const target of targets) t.equal((await ask(port, target)).url, target, target)
})

t.test('a prefix is stripped or replaced in every spelling, the rest is unchanged', async (t) => {
  const { port } = await routed(t, [
    { name: 'strip', match: { path: '/api/orders' }, path: { strip: '/api' } },
    { name: 'whole', match: { path: '/whole' }, path: { strip: '/whole/' } },
    { name: 'rewrite', match: { path: '/old/a' }, path: { rewrite: { prefix: '/new/' } } },
    { name: 'root', match: { path: '/to-root' }, path: { rewrite: { prefix: '/' } } },
    { name: 'exact', match: { path: { exact: '/one' } }, path: { rewrite: { prefix: '/two' } } },
    { name: 'unicode', match: { path: '/caf\u00e9' }, path: { strip: '/caf\u00e9' } },
    { name: 'encoded', match: { path: '/enc' }, path: { rewrite: { prefix: '/\u5065 a%20b' } } }
  ])
  const expected: [string, string][] = [
    ['/api/orders', '/orders'],
    ['/api/orders?x=1', '/orders?x=1'],
    ['/api/orders/%41%20?', '/orders/%41%20?'],
    ['/%61p%69/orders/1', '/orders/1'],
    ['//api//orders//1', '/orders//1'],
    ['/whole', '/'],
    ['/whole/', '/'],
    ['/whole?x', '/?x'],
    ['/whole//evil.example.com/x', '/evil.example.com/x'],
    ['/old/a', '/new'],
    ['/old/a/', '/new/'],
    ['/old/a?b?c', '/new?b?c'],
    ['/old//a//b', '/new/b'],
    ['/to-root', '/'],
    ['/to-root/x', '/x'],
    ['/to-root?x', '/?x'],
    ['/one?x=/one', '/two?x=/one'],
    ['/enc/x', '/%E5%81%A5%20a%20b/x'],
    ['/caf%C3%A9/x', '/x']
  ]
  for (const [target, url] of expected) t.equal((await ask(port, target)).url, url, target)
})

t.test('ambiguous paths are refused before any rule is applied', async (t) => {
  const { port } = await routed(t, [
    { name: 'public', match: { path: '/public' } },
    { name: 'admin', match: { path: '/admin' }, edge: { jwt: { secret: 'x'.repeat(32) } } }
  ])
  const targets = [
    '/public/../admin',
    '/public/..',
    '/public/.',
    '/public/./x',
    '/public/%2e%2e/admin',
    '/public/%2E./admin',
    '/public/.%2e/admin',
    '/public/%2e/x',
    '/public/..;/admin',
    '/public/..;a=b/admin',
    '/public/..%3b/admin',
    '/public\\..\\admin',
    '/public/%5c../admin',
    '/public/..%5Cadmin',
    '/public%2f..%2Fadmin',
    '/public/%00',
    '/public#/admin',
    '/..',
    '/public/x?y#z',
    '/public;x=1/y',
    '/public/;x/y',
    '/public/y%3Bx',
    '/public/%c0%ae%c0%ae/admin',
    '/public/%C0%AFadmin',
    '/public/%e0%80%afadmin'
  ]
  for (const target of targets) {
    const { status, body, headers } = await get(port, target)
    t.equal(status, 400, target)
    t.match(JSON.parse(body), { code: 'JW_AMBIGUOUS_PATH', requestId: headers['x-request-id'] }, target)
  }
  for (const target of ['http://evil/public', 'http://h/public/../admin', 'public', '*']) {
    t.not((await get(port, target)).status, 200, target)
  }
  t.match(JSON.parse((await get(port, 'http://evil/public')).body), { code: 'JW_BAD_TARGET' })
  t.equal((await get(port, 'http://h/public')).status, 200)
  t.equal((await get(port, 'http://h/admin')).status, 401)
  t.equal((await get(port, '/admin')).status, 401)
  t.equal((await get(port, '//admin')).status, 401)
  t.equal((await get(port, '/%61dmin')).status, 401)
})

t.test('an encoded slash is forwarded byte for byte if the route allows it, and no other escape is', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const gateway = await startGateway({
    services: { any: { instances: [echo.url] } },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'packages', match: { path: '/npm' }, service: 'any', path: { strip: '/npm', encodedSlash: 'pass' } },
      { name: 'kept', match: { path: '/git' }, service: 'any', path: { encodedSlash: 'pass' } }
    ]
  })
  t.teardown(gateway.close)
  const { port } = gateway
  const target = async (path: string) => JSON.parse((await get(port, path)).body).url
  t.equal(await target('/npm/@a%2Fb?c=%2f'), '/@a%2Fb?c=%2f')
  t.equal(await target('/git/a%2fb/c%2Fd'), '/git/a%2fb/c%2Fd')
  for (const refused of [
    '/a%2Fb',
    '/git%2fa',
    '/git/..%2fa',
    '/git/a%2f..',
    '/git/a%2F%2e%2e%2fb',
    '/git/a%2f./b',
    '/git/a%2f..;b',
    '/git/a%5cb',
    '/git/a%2fb%00'
  ]) {
    const { status, body } = await get(port, refused)
    t.match({ status, ...JSON.parse(body) }, { status: 400, code: 'JW_AMBIGUOUS_PATH' }, refused)
  }
})

t.test('a path with invalid escapes is a 400 in the format of all errors', async (t) => {
  const { port } = await routed(t, [{ name: 'all', match: { path: '/' } }])
  for (const target of ['/%', '/%zz', '/a%2', '/%u0061']) {
    const { status, body, headers } = await get(port, target, ['x-request-id: abc'])
    t.equal(status, 400, target)
    t.equal(headers['x-request-id'], 'abc')
    t.match(JSON.parse(body), { statusCode: 400, code: 'JW_BAD_TARGET', requestId: 'abc' }, target)
    t.notMatch(body, target, 'the response does not repeat the target')
  }
})

t.test('a target that is too long is 414, a header section too large 431, and neither is forwarded', async (t) => {
  const { port } = await routed(t, [{ name: 'all', match: { path: '/' } }], { limits: { url: '100b', headers: '1kb' } })
  t.equal((await get(port, `/${'a'.repeat(99)}`)).status, 200)
  const long = await get(port, `/${'a'.repeat(100)}`)
  t.equal(long.status, 414)
  t.match(JSON.parse(long.body), { code: 'JW_URL_TOO_LONG' })
  t.equal((await get(port, `/?${'a'.repeat(99)}`)).status, 414)
  for (const bytes of [`X-Large: ${'a'.repeat(2000)}`, Array(80).fill('X-Many: aaaaaaaaaaa').join('\r\n')]) {
    const { status, headers, body } = parse(await raw(port, `GET / HTTP/1.1\r\nHost: h\r\n${bytes}\r\n\r\n`))
    t.equal(status, 431)
    t.equal(headers.connection, 'close')
    t.match(JSON.parse(body), { statusCode: 431 })
  }
})

t.test('a malformed request is 400 and the connection closed', async (t) => {
  const { port } = await routed(t, [{ name: 'all', match: { path: '/' } }])
  const headerSections = [
    'nonsense',
    'GET / HTTP/3.0\r\nHost: h',
    'GET /a b HTTP/1.1\r\nHost: h',
    'FOO / HTTP/1.1\r\nHost: h',
    'GET / HTTP/1.1',
    'GET / HTTP/1.1\r\nHost: a\r\nHost: b',
    'GET / HTTP/1.1\r\nHost: h\r\nBad Name: x',
    'GET / HTTP/1.1\r\nHost: h\r\n folded: x',
    'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked',
    'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2',
    'POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -1',
    'POST / HTTP/1.1\r\nHost: h\r\nContent-Length : 1',
    'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity'
  ]
  for (const headerSection of headerSections) {
    const text = await raw(
      port,
      `${headerSection}\r\n${headerSection.includes('Host: b') ? 'Connection: close\r\n' : ''}\r\n`
    )
    t.equal(parse(text).status, 400, headerSection)
  }
  const coded = 'POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n'
  t.equal(parse(await raw(port, coded)).status, 501, 'RFC 9112, 6.1')
})

t.test('ambiguous requests are refused before any hook runs', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  let looked = 0
  const gateway = await startGateway(
    {
      services: { any: { instances: [echo.url] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any', edge: { jwt: { secret: 'x'.repeat(32) } } }]
    },
    { before: (server) => void server.addHook('preParsing', async () => void looked++) }
  )
  t.teardown(gateway.close)
  for (const [status, code, lines] of [
    [400, 'JW_SEVERAL_HOSTS', ['Host: h', 'hOST: h']],
    [501, 'JW_UNKNOWN_CODING', ['Host: h', 'Transfer-Encoding: gzip, chunked']],
    [401, 'JW_TOKEN_MISSING', ['Host: h', 'Transfer-Encoding: CHUNKED']]
  ] as const) {
    const bytes = `${['POST / HTTP/1.1', ...lines, 'Connection: close'].join('\r\n')}\r\n\r\n0\r\n\r\n`
    const response = parse(await raw(gateway.port, bytes))
    t.equal(response.status, status)
    t.match(response.body, code)
    t.equal(response.headers.connection, 'close')
  }
  t.equal(looked, 0)
})
