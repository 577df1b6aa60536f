// Redirects: targets over HTTP/1.1 and HTTP/2, and requests that try to choose the host of the target.
import t from 'tap'
import { startRoutes, startSecure } from '../../helpers/edge/direct-clients.ts'
import { connect, get, parse } from '../../helpers/gateway.ts'

const routes = [
  { name: 'exact', match: { path: { exact: '/a' } }, redirect: { to: '/b' } },
  { name: 'host', match: { path: '/host' }, redirect: { to: 'https://WWW.Example.com', status: 301 } },
  { name: 'root', match: { path: '/root' }, redirect: { to: 'https://www.example.com:443/', status: 307 } },
  {
    name: 'id',
    match: { path: '/user/:id' },
    redirect: { to: 'http://x.example:8080/v2/u/:id?from=old#top', status: 308 }
  },
  { name: 'rest', match: { path: '/rest/*' }, redirect: { to: '/new/*', status: 303, query: 'drop' } },
  { name: 'prefix', match: { path: '/docs' }, path: { rewrite: { prefix: '/guide' } }, redirect: {} },
  { name: 'strip', match: { path: '/app' }, path: { strip: '/app' }, redirect: { to: 'https://app.example.com' } },
  {
    name: 'regex',
    match: { path: '/p' },
    path: { rewrite: { regex: '^/p/(\\d+)-(.*)$', to: '/q/$2/$1' } },
    redirect: {}
  },
  { name: 'scheme', match: { path: '/secure' }, redirect: { scheme: 'https', status: 308 } },
  { name: 'port', match: { path: '/port' }, redirect: { scheme: 'https', port: 8443 } },
  {
    name: 'raw',
    match: { path: '/raw' },
    path: { parameters: 'pass', encodedSlash: 'pass' },
    redirect: { to: 'https://h.example' }
  }
]

const wanted: [target: string, status: number, location: string][] = [
  ['/a', 302, '/b'],
  ['/a?x=%0d%0a&y', 302, '/b?x=%0d%0a&y'],
  ['/host', 301, 'https://www.example.com/host'],
  ['/host/a%20b/?q', 301, 'https://www.example.com/host/a%20b/?q'],
  ['/root/any?q=1', 307, 'https://www.example.com/?q=1'],
  ['/user/7', 308, 'http://x.example:8080/v2/u/7?from=old#top'],
  ['/user/a%3Fb%23c?x=1', 308, 'http://x.example:8080/v2/u/a%3Fb%23c?from=old&x=1#top'],
  ['/user/@evil.example', 308, 'http://x.example:8080/v2/u/@evil.example?from=old#top'],
  ['/rest/a/b?q=1', 303, '/new/a/b'],
  ['/rest//evil.example', 303, '/new/evil.example'],
  ['/docs', 302, '/guide'],
  ['/docs/x/y?z', 302, '/guide/x/y?z'],
  ['/app//evil.example/x', 302, 'https://app.example.com/evil.example/x'],
  ['/app', 302, 'https://app.example.com/'],
  ['/app?x', 302, 'https://app.example.com/?x'],
  ['/p/12-x', 302, '/q/x/12'],
  ['/secure/x?y=1', 308, 'https://own.example/secure/x?y=1'],
  ['/port', 302, 'https://own.example:8443/port'],
  ['/raw/a%2Fb;v=1', 302, 'https://h.example/raw/a%2Fb;v=1']
]

t.test('over HTTP/1.1', async (t) => {
  const { port, log } = await startRoutes(t, routes)
  for (const method of ['GET', 'HEAD', 'POST']) {
    for (const [target, status, location] of wanted) {
      const got = await get(port, target, ['Host: Own.Example.:8080'], method)
      t.equal(got.status, status, `${method} ${target}`)
      t.equal(got.headers.location, location)
      t.equal(got.body, '')
      t.equal(got.headers['content-length'], method === 'HEAD' ? undefined : '0')
    }
  }
  t.match(log.filter(({ msg }) => msg === 'request').at(-1), { route: 'raw', answeredBy: 'gateway' })
})

t.test('over HTTP/2', async (t) => {
  const { ask } = await startSecure(
    t,
    routes.filter(({ name }) => name !== 'scheme')
  )
  for (const [target, status, location] of wanted) {
    if (target.startsWith('/secure')) continue
    const got = await ask(target, { ':authority': 'own.example' })
    t.equal(got.status, status, target)
    t.equal(got.headers.location, location)
    t.equal(got.body, '')
  }
})

t.test('no request chooses the host of the target', async (t) => {
  const all = [
    {
      name: 'all',
      match: { path: '/' },
      path: { strip: '/', parameters: 'pass', encodedSlash: 'pass' },
      redirect: { query: 'keep', scheme: 'https' }
    },
    { name: 'x', match: { path: '/x/*' }, redirect: { to: '/*' } },
    { name: 'y', match: { path: '/y' }, path: { strip: true, parameters: 'pass', encodedSlash: 'pass' }, redirect: {} },
    { name: 'z', match: { path: '/z/:to' }, path: { encodedSlash: 'pass' }, redirect: { to: '/:to' } },
    { name: 'v', match: { path: '/v*' }, path: { strip: true }, redirect: {} }
  ]
  const { port } = await startRoutes(t, all)
  const targets = [
    '//evil.example', '///evil.example', '/x//evil.example', '/x///evil.example', '/x/%2Fevil.example', '/x/%2F%2Fevil.example',
    '/x/%5Cevil.example', '/x/\\evil.example', '/x/%09/evil.example', '/x/%0d%0aLocation:%20https://evil.example', '/y//evil.example',
    '/y/%2fevil.example', '/y//\\evil.example', '/y\\evil.example', '/z/%2Fevil.example', '/z/%2F%2Fevil.example', '/z//evil.example',
    '/z/https:%2F%2Fevil.example', '/y/https://evil.example', '/x/.//evil.example', '/x/..//evil.example', '/v//evil.example', '/v%2F/evil.example', '/v\\\\evil.example',
    '/y/;/evil.example', '/y/;//evil.example', 'http://own.example//evil.example', '/y?//evil.example', '/y/%ff%fe//evil.example', '//evil.example/%2e%2e'
  ] // biome-ignore format: a list
  for (const target of targets) {
    const client = connect(
      port,
      `GET ${target} HTTP/1.1\r\nHost: own.example\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\nConnection: close\r\n\r\n`
    )
    const { text } = await client.closed
    const { status, headers, lines } = parse(text)
    t.ok([302, 400, 404, 508].includes(status), `${target}: ${status}`)
    t.equal(lines.filter((line) => /^location/i.test(line)).length, status === 302 ? 1 : 0)
    if (status !== 302) continue
    const { location = '' } = headers
    t.equal(new URL(location, 'http://own.example/base').hostname, 'own.example', `${target}: ${location}`)
    t.notMatch(location, /[^!-~]|\\|^\/\//, location)
  }
})

t.test('the host of the request is a host', async (t) => {
  const scheme = routes.filter(({ name }) => name === 'scheme')
  const { port } = await startRoutes(t, scheme)
  for (const host of [
    'evil.example/',
    'a@evil.example',
    'own.example:80@evil.example',
    'a b',
    'own.example\\',
    ':80',
    '[::1',
    'own.example:x'
  ]) {
    t.equal((await get(port, '/secure', [`Host: ${host}`])).status, 400, host)
  }
  for (const [host, origin] of [
    ['OWN.example:80', 'https://own.example'],
    ['own.example.', 'https://own.example'],
    ['[0:0::1]:80', 'https://[::1]'],
    ['127.0.0.1:9', 'https://127.0.0.1']
  ]) {
    t.equal((await get(port, '/secure', [`Host: ${host}`])).headers.location, `${origin}/secure`)
  }
  const client = connect(port, 'GET /secure HTTP/1.0\r\n\r\n')
  t.match(parse((await client.closed).text).status, 400, 'HTTP/1.0 without Host')
})

t.test('behind a proxy that ends TLS', async (t) => {
  const scheme = [{ name: 'secure', match: { path: '/' }, redirect: { scheme: 'https' } }]
  const { port, log } = await startRoutes(t, scheme, { listen: { trustProxy: ['127.0.0.1'] } })
  t.equal((await get(port, '/x', ['Host: h'])).headers.location, 'https://h/x')
  const looped = await get(port, '/x', ['Host: h', 'X-Forwarded-Proto: https'])
  t.match(looped, { status: 508, body: /JW_REDIRECT_LOOP/ })
  t.notOk(
    log.find(({ level }) => level === 50),
    'the fault is no error in the log'
  )
})

t.test('a redirect to itself ends', async (t) => {
  const { port } = await startRoutes(t, [{ name: 'all', match: { path: '/' }, redirect: { to: '/here' } }])
  t.equal((await get(port, '/there?q')).headers.location, '/here?q')
  t.equal((await get(port, '/here?q')).status, 508)
})

t.test('explain and the list of routes', async (t) => {
  const { server } = await startRoutes(t, routes, { admin: { host: '127.0.0.1', port: 0 } })
  const admin = server.admin!
  const explained = async (path: string) =>
    (
      (await admin.inject(`/admin/explain?path=${encodeURIComponent(path)}&header=host:own.example`)).json() as {
        direct: string
      }
    ).direct
  t.equal(await explained('/user/7?x=1'), 'redirect 308 to http://x.example:8080/v2/u/7?from=old&x=1#top')
  t.equal(await explained('/p/1-a'), 'redirect 302 to /q/a/1')
  t.equal(await explained('/p/other'), '508, a redirect to the URL of the request itself')
  const listed = (await admin.inject('/admin/routes')).json() as { name: string; direct: string }[]
  t.strictSame(listed.map(({ direct }) => direct).slice(0, 2), [
    'redirect 302 to /b',
    'redirect 301 to https://WWW.Example.com'
  ])
  t.equal(listed.find(({ name }) => name === 'port')?.direct, 'redirect 302 to https:8443')
})
