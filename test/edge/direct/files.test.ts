// Files of a folder: what is sent, and what is not, over HTTP/1.1 and HTTP/2.
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { http2Client } from '../../helpers/edge/direct-clients.ts'
import { connect, get, parse, startEcho, startWith } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const pair = selfSigned(t)
const large = Buffer.from(Array.from({ length: 300_000 }, (_, index) => index % 251))

function folderOf(t: Test): string {
  const folder = t.testdir({
    secret: 'SECRET',
    outside: { 'secret.txt': 'SECRET' },
    site: {
      'index.html': '<html>root</html>',
      'app.js': 'app()',
      'app.js.gz': 'gzipped',
      'app.js.br': 'brotli',
      'a b+é%.txt': 'odd',
      '.env': 'SECRET',
      '.git': { config: 'SECRET' },
      '.well-known': { 'security.txt': 'contact', '.hidden': 'SECRET' },
      docs: { 'index.html': '<html>docs</html>', 'page.html': '<html>page</html>' },
      empty: { 'x.txt': 'x' }
    }
  })
  const site = join(folder, 'site')
  writeFileSync(join(site, 'large.bin'), large)
  symlinkSync(join(folder, 'secret'), join(site, 'link.txt'))
  symlinkSync(join(folder, 'outside'), join(site, 'linked'))
  symlinkSync(join(site, 'app.js'), join(site, 'inner.js'))
  symlinkSync(join(folder, 'secret'), join(site, 'docs', 'page.html.gz'))
  symlinkSync(join(folder, 'none'), join(site, 'dangling'))
  mkdirSync(join(folder, 'site-other'))
  writeFileSync(join(folder, 'site-other', 'x.txt'), 'SECRET')
  return folder
}

const routes = `routes:
  - { name: site, match: { path: / }, files: { root: site } }
  - { name: spa, match: { path: /spa }, path: { strip: true }, files: { root: ./site, spa: true, maxAge: 1h, immutable: true } }
  - { name: api, match: { path: /spa/api }, response: { json: {} } }`

async function start(t: Test, more = '', yaml = routes) {
  const file = join(folderOf(t), 'gateway.yaml')
  const { port, close } = await startWith(parseConfig(`admin: false\n${more}\n${yaml}`, file, {}))
  t.teardown(close)
  return port
}

const sent: [path: string, type: string, body: string][] = [
  ['/', 'text/html; charset=utf-8', '<html>root</html>'],
  ['/index.html', 'text/html; charset=utf-8', '<html>root</html>'],
  ['/app.js?v=1', 'application/javascript; charset=utf-8', 'app()'],
  ['/inner.js', 'application/javascript; charset=utf-8', 'app()'],
  ['/a%20b+%C3%A9%25.txt', 'text/plain; charset=utf-8', 'odd'],
  ['/docs/', 'text/html; charset=utf-8', '<html>docs</html>'],
  ['//docs//page.html', 'text/html; charset=utf-8', '<html>page</html>'],
  ['/.well-known/security.txt', 'text/plain; charset=utf-8', 'contact'],
  ['/large.bin', 'application/octet-stream', large.toString('latin1')],
  ['/spa/app.js', 'application/javascript; charset=utf-8', 'app()']
]

t.test('over HTTP/1.1', async (t) => {
  const port = await start(t)
  for (const [path, type, body] of sent) {
    for (const method of ['GET', 'HEAD']) {
      const got = await get(port, path, [], method)
      t.equal(got.status, 200, `${method} ${path}`)
      t.equal(got.headers['content-type'], type)
      t.equal(got.headers['content-length'], String(body.length))
      t.ok(got.body === (method === 'HEAD' ? '' : body), 'the bytes')
      t.match(got.headers, {
        etag: /^W\/"/,
        'last-modified': /GMT$/,
        'accept-ranges': 'bytes',
        'cache-control': /no-cache|max-age/
      })
    }
  }
})

t.test('over HTTP/2', async (t) => {
  const { cert, key } = pair
  const port = await start(t, `listen: { http2: true, tls: { cert: ${cert}, key: ${key} } }`)
  const ask = await http2Client(t, port)
  for (const [path, type, body] of sent) {
    const got = await ask(path)
    t.match(got, { status: 200, headers: { 'content-type': type } }, path)
    t.ok(got.body === body, 'the bytes')
    t.match(await ask(path, { ':method': 'HEAD' }), {
      status: 200,
      body: '',
      headers: { 'content-length': String(body.length) }
    })
  }
  t.match(await ask('/large.bin', { range: 'bytes=10-19' }), {
    status: 206,
    body: large.subarray(10, 20).toString('latin1')
  })
  t.match(await ask('/none'), { status: 404 })
})

t.test('what is not sent', async (t) => {
  const port = await start(t)
  const targets = [
    '/none', '/app.js/', '/app.js/x', '/empty/', '/empty', '/.env', '/%2eenv', '/.git/config', '/docs/.env', '/.well-known/.hidden',
    '/link.txt', '/linked/secret.txt', '/linked/', '/dangling', '/../secret', '/..%2fsecret', '/%2e%2e/secret', '/docs/../../secret', '/docs/%2e%2e/%2e%2e/secret',
    '/..\\secret', '/..%5csecret', '/%00', '/app.js%00.txt', '/%ff', '/%c0%ae%c0%ae/secret', '/..;/secret', '/....//secret', '/site-other/x.txt', '/../site-other/x.txt',
    '/..%c0%afsecret', '/%252e%252e/secret', '//secret', '/~root', '/C:/x', `/${'a'.repeat(300)}`, `/${'a/'.repeat(2000)}`, '/app.js.', '/APP.JS', '/docs/page.html%20'
  ] // biome-ignore format: a list
  for (const target of targets) {
    const client = connect(port, `GET ${target} HTTP/1.1\r\nHost: h\r\nAccept: text/html\r\nConnection: close\r\n\r\n`)
    const { text } = await client.closed
    t.ok([400, 404].includes(parse(text).status), `${target.slice(0, 50)}: ${parse(text).status}`)
    t.notMatch(text, /SECRET/)
  }
  t.match(await get(port, '/none'), { status: 404, body: /JW_NO_FILE/ })
  t.match(await get(port, '/docs/page.html', ['Accept-Encoding: gzip']), { body: /^(?!.*SECRET)/s })
  for (const method of ['POST', 'PUT', 'DELETE', 'OPTIONS']) {
    t.match(await get(port, '/app.js', [], method), { status: 405, headers: { allow: 'GET, HEAD' } }, method)
  }
})

t.test('folders without a slash are redirected, to the same host', async (t) => {
  const port = await start(t)
  t.match(await get(port, '/docs?q=1'), { status: 302, headers: { location: '/docs/?q=1' } })
  t.match(await get(port, '//docs'), { status: 302, headers: { location: '/docs/' } })
  t.match(await get(port, '/spa/docs'), { status: 302, headers: { location: '/spa/docs/' } })
})

t.test('the root of a route without its slash is redirected as well', async (t) => {
  const { cert, key } = pair
  const mapped = `routes:
  - { name: site, match: { path: /site }, path: { strip: /site }, files: { root: site } }
  - { name: item, match: { path: "/of/:name/*" }, path: { rewrite: { path: "/*" } }, files: { root: site } }
  - { name: exact, match: { path: { exact: /home } }, path: { rewrite: { path: /docs/ } }, files: { root: site } }
  - { name: spa, match: { path: /spa }, path: { strip: /spa }, files: { root: site, spa: true } }`
  const port = await start(t, '', mapped)
  const secure = await http2Client(
    t,
    await start(t, `listen: { http2: true, tls: { cert: ${cert}, key: ${key} } }`, mapped)
  )
  for (const ask of [(path: string) => get(port, path), secure]) {
    for (const [path, location] of [
      ['/site', '/site/'],
      ['/site?a=//evil.example&b', '/site/?a=//evil.example&b'],
      ['//site', '/site/'],
      ['/site/docs', '/site/docs/']
    ] as const)
      t.match(await ask(path), { status: 302, headers: { location } }, path)
    for (const path of ['/site/', '/site//', '/spa/', '/of/x/'])
      t.match(await ask(path), { status: 200, body: '<html>root</html>' }, path)
    t.match(await ask('/home'), { status: 200, body: '<html>docs</html>' }, 'the path with a slash is of no route')
    t.equal((await ask('/spa')).status, 200, 'an application')
  }
})

t.test('page loads of an application', async (t) => {
  const port = await start(t)
  const page = { status: 200, body: '<html>root</html>', headers: { 'cache-control': 'public, no-cache' } }
  const navigate = 'Sec-Fetch-Mode: navigate'
  t.match(await get(port, '/spa/users/7', [navigate]), page)
  t.match(await get(port, '/spa/users/jo.smith', [navigate]), page)
  t.match(await get(port, '/spa', ['Accept: text/html,*/*']), page)
  t.match(await get(port, '/spa/', []), page)
  t.match(await get(port, '/spa/users/7', ['Accept: text/html,*/*']), page)
  t.match(await get(port, '/spa/users/7', [navigate], 'HEAD'), { ...page, body: '' })
  t.equal((await get(port, '/spa/none.png', ['Accept: image/png,*/*'])).status, 404)
  t.equal((await get(port, '/spa/none.js', ['Sec-Fetch-Mode: no-cors', 'Accept: text/html'])).status, 404)
  t.equal((await get(port, '/spa/api/none', [navigate])).body, '{}')
  t.equal((await get(port, '/users/7', [navigate])).status, 404, 'without spa')
  t.equal((await get(port, '/spa/.env', [navigate])).body, page.body, 'the page, and not the file')
  t.equal((await get(port, '/spa/app.js')).headers['cache-control'], 'public, max-age=3600, immutable')
  t.equal(
    (await get(port, '/spa/app.js', ['Authorization: Bearer x'])).headers['cache-control'],
    'private, max-age=3600, immutable'
  )
})

t.test('ranges and conditions', async (t) => {
  const port = await start(t)
  const part = (from: number, to: number) => large.subarray(from, to).toString('latin1')
  t.match(await get(port, '/large.bin', ['Range: bytes=5-9']), {
    status: 206,
    body: part(5, 10),
    headers: { 'content-range': 'bytes 5-9/300000', 'content-length': '5' }
  })
  t.match(await get(port, '/large.bin', ['Range: bytes=-3']), { status: 206, body: part(299_997, 300_000) })
  t.match(await get(port, '/large.bin', ['Range: bytes=300000-']), {
    status: 416,
    headers: { 'content-range': 'bytes */300000' }
  })
  const { etag, 'last-modified': modified } = (await get(port, '/app.js')).headers
  t.match(await get(port, '/app.js', [`If-None-Match: ${etag}`]), { status: 304, body: '' })
  t.match(await get(port, '/app.js', [`If-Modified-Since: ${modified}`]), { status: 304, body: '' })
  t.match(await get(port, '/app.js', ['If-None-Match: "x"']), { status: 200, body: 'app()' })
  const client = connect(port)
  for (const path of ['/app.js', '/large.bin', '/none', '/app.js'])
    client.send(`GET ${path} HTTP/1.1\r\nHost: h\r\n\r\n`)
  t.match(await client.until('app()', '404 Not Found'), /200 OK/)
  client.socket.destroy()
})

t.test('compressed variants', async (t) => {
  const port = await start(t)
  const got = (encodings: string) => get(port, '/app.js', [`Accept-Encoding: ${encodings}`])
  t.match(await got('gzip'), {
    body: 'gzipped',
    headers: { 'content-encoding': 'gzip', 'content-type': /javascript/, vary: /accept-encoding/i }
  })
  t.match(await got('br, gzip'), { body: 'brotli', headers: { 'content-encoding': 'br' } })
  t.match(await got('identity'), { body: 'app()', headers: { vary: /accept-encoding/i } })
  t.match(await get(port, '/docs/', ['Accept-Encoding: gzip, br']), { body: '<html>docs</html>' })
})

t.test('concerns apply; clients that leave; services beside it', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const port = await start(
    t,
    `services: { s: { instances: ["${echo.url}"] } }`,
    `routes:
  - { name: site, match: { path: / }, files: { root: site }, edge: { ipFilter: { deny: [127.0.0.0/8] } } }
  - { name: open, match: { path: /open }, path: { strip: true }, files: { root: site } }
  - { name: s, match: { path: /s }, service: s }`
  )
  t.equal((await get(port, '/app.js')).status, 403)
  t.equal((await get(port, '/s')).status, 200)
  for (let i = 0; i < 5; i++) {
    const client = connect(port, 'GET /open/large.bin HTTP/1.1\r\nHost: h\r\n\r\n')
    await client.until('200 OK')
    client.socket.destroy()
  }
  t.equal((await get(port, '/open/large.bin')).body.length, large.length)
})

t.test('compressed on the way, with a length and without, and by parts', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const port = await start(
    t,
    'edge: { compression: { types: ["application/octet-stream", "application/javascript", "text/plain"], minSize: 10b } }',
    `routes:
  - { name: site, match: { path: / }, files: { root: site } }
  - { name: text, match: { path: /text }, response: { body: "${'x'.repeat(5000)}" } }`
  )
  const gzip = 'Accept-Encoding: gzip'
  const unpacked = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`, { headers: { 'accept-encoding': 'gzip' } })
    t.equal(response.headers.get('content-encoding'), 'gzip', path)
    t.match(response.headers.get('vary'), /accept-encoding/i)
    t.match(response.headers.get('etag'), /^W\//)
    return Buffer.from(await response.arrayBuffer())
  }
  t.ok((await unpacked('/large.bin')).equals(large))
  t.equal((await unpacked('/text')).toString(), 'x'.repeat(5000))
  t.match(await get(port, '/app.js', [gzip]), { body: 'gzipped', headers: { 'content-encoding': 'gzip' } }, 'not twice')
  const { status, headers } = await get(port, '/large.bin', [gzip, 'Range: bytes=5-900'])
  t.strictSame([status, headers['content-encoding']], [206, undefined])
})

t.test('explain', async (t) => {
  const file = join(folderOf(t), 'gateway.yaml')
  const portals = 'services: { s: { instances: ["http://127.0.0.1:9"] } }'
  const docs = '{ name: docs, match: { path: /docs }, portal: { services: { s: { path: /openapi.json } } } }'
  const { server, close } = await startWith(
    parseConfig(`admin: { host: 127.0.0.1, port: 0 }\n${portals}\n${routes}\n  - ${docs}`, file, {})
  )
  t.teardown(close)
  const explained = async (method: string, path: string) =>
    ((await server.admin!.inject(`/admin/explain?method=${method}&path=${path}`)).json() as { direct: string }).direct
  t.equal(await explained('GET', '/app.js'), `file ${join(file, '..', 'site', 'app.js')}`)
  t.equal(await explained('DELETE', '/app.js'), '405, since only GET and HEAD read files')
  t.equal(await explained('HEAD', '/docs/openapi.json'), 'portal of s')
  t.equal(await explained('POST', '/docs'), '405, since only GET and HEAD read a portal')
  const refused = await server.admin!.inject('/admin/explain?method=HEAD&path=/a%2500')
  t.match(refused.json(), { refused: { status: 400, code: 'JW_AMBIGUOUS_PATH' } }, 'the response to HEAD has no body')
})
