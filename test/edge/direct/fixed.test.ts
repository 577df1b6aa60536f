// Fixed responses: the bytes over HTTP/1.1 and HTTP/2, entity tags, and the concerns of the edge before them.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { parseConfig } from '../../../plugins/config.ts'
import { startRoutes, startSecure } from '../../helpers/edge/direct-clients.ts'
import { connect, get, parse, startWith } from '../../helpers/gateway.ts'

const routes = [
  { name: 'text', match: { path: '/text' }, response: { body: 'grüße\n', headers: { 'cache-control': 'max-age=60' } } },
  { name: 'json', match: { path: '/json' }, response: { json: { a: [1, null, 'ä'] }, status: 201 } },
  { name: 'html', match: { path: '/html' }, response: { body: '<p>', contentType: 'text/html', etag: false } },
  { name: 'none', match: { path: '/none' }, response: { status: 204 } },
  { name: 'bare', match: { path: '/bare' }, response: { status: 418 } },
  { name: 'empty', match: { path: '/empty' }, response: { body: '' } }
]
const utf8 = (text: string) => Buffer.from(text).toString('latin1')

const wanted: [path: string, status: number, type: string | undefined, body: string][] = [
  ['/text', 200, 'text/plain; charset=utf-8', utf8('grüße\n')],
  ['/text/below?q=1', 200, 'text/plain; charset=utf-8', utf8('grüße\n')],
  ['/json', 201, 'application/json; charset=utf-8', utf8('{"a":[1,null,"ä"]}')],
  ['/html', 200, 'text/html', '<p>'],
  ['/none', 204, undefined, ''],
  ['/bare', 418, undefined, ''],
  ['/empty', 200, 'text/plain; charset=utf-8', '']
]

t.test('over HTTP/1.1', async (t) => {
  const { port, log } = await startRoutes(t, routes)
  for (const method of ['GET', 'HEAD', 'POST', 'DELETE']) {
    for (const [path, status, type, body] of wanted) {
      const got = await get(port, path, [], method)
      t.equal(got.status, status, `${method} ${path}`)
      t.equal(got.headers['content-type'], type)
      t.equal(got.body, method === 'HEAD' ? '' : body)
      const hasLength = status !== 204 && (method !== 'HEAD' || type !== undefined)
      t.equal(got.headers['content-length'], hasLength ? String(body.length) : undefined)
      t.equal(got.headers['transfer-encoding'], undefined)
    }
  }
  t.equal((await get(port, '/text')).headers['cache-control'], 'max-age=60')
  t.match(log.filter(({ msg }) => msg === 'request').at(-1), { route: 'text', status: 200, answeredBy: 'gateway' })
})

t.test('over HTTP/2', async (t) => {
  const { ask } = await startSecure(t, routes)
  for (const method of ['GET', 'HEAD', 'POST']) {
    for (const [path, status, type, body] of wanted) {
      const got = await ask(path, { ':method': method }, method === 'POST' ? 'body' : undefined)
      t.equal(got.status, status, `${method} ${path}`)
      t.equal(got.headers['content-type'], type)
      t.equal(got.body, method === 'HEAD' ? '' : body)
    }
  }
})

t.test('requests that follow on a connection, with bodies that nothing reads', async (t) => {
  const { port } = await startRoutes(t, routes)
  const client = connect(port)
  const post = `POST /text HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nGET /`
  const chunked = 'POST /json HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n'
  client.send(`${post}${chunked}GET /bare HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n`)
  const { text } = await client.closed
  t.strictSame(text.match(/HTTP\/1\.1 \d+/g), ['HTTP/1.1 200', 'HTTP/1.1 201', 'HTTP/1.1 418'])
  t.equal((await get(port, '/text', ['Content-Length: 99999999'], 'POST')).status, 413, 'bodyLimit')
})

t.test('entity tags', async (t) => {
  const { port } = await startRoutes(t, routes)
  const tag = (await get(port, '/text')).headers.etag!
  t.match(tag, /^"[\w-]{22}"$/)
  for (const field of [tag, `W/${tag}`, `"x", ${tag}`, '*']) {
    const got = await get(port, '/text', [`If-None-Match: ${field}`])
    t.match(got, { status: 304, body: '', headers: { etag: tag, 'cache-control': 'max-age=60' } }, field)
    t.equal(got.headers['content-type'], undefined)
    t.equal((await get(port, '/text', [`If-None-Match: ${field}`], 'HEAD')).status, 304)
    t.equal((await get(port, '/text', [`If-None-Match: ${field}`], 'POST')).status, 200)
  }
  t.equal((await get(port, '/text', ['If-None-Match: "x"'])).status, 200)
  t.equal((await get(port, '/json', ['If-None-Match: *'])).status, 201)
  t.equal((await get(port, '/html', ['If-None-Match: *'])).headers.etag, undefined)
  const { ask } = await startSecure(t, routes)
  t.match(await ask('/text', { 'if-none-match': tag }), { status: 304, body: '' })
})

t.test('a file, relative to the configuration', async (t) => {
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, index) => index))
  const folder = t.testdir({ 'page.html': '<h1>é</h1>', 'bytes.dat': '' })
  writeFileSync(join(folder, 'bytes.dat'), bytes)
  const yaml = `admin: false
routes:
  - { name: page, match: { path: /page }, response: { file: page.html, status: 503 } }
  - { name: bytes, match: { path: /bytes }, response: { file: ./bytes.dat, contentType: application/x-bytes } }`
  const { port, close } = await startWith(parseConfig(yaml, join(folder, 'gateway.yaml'), {}))
  t.teardown(close)
  t.match(await get(port, '/page'), {
    status: 503,
    body: utf8('<h1>é</h1>'),
    headers: { 'content-type': 'text/html; charset=utf-8' }
  })
  t.match(await get(port, '/bytes'), {
    body: bytes.toString('latin1'),
    headers: { 'content-type': 'application/x-bytes', 'content-length': '256' }
  })
})

t.test('concerns apply', async (t) => {
  const [text] = routes
  const edge = {
    keyAuth: { header: 'apikey' },
    rateLimit: { max: 3, window: '1m' },
    cors: { origin: ['https://app.example.com'] }
  }
  const consumers = [{ name: 'a', keyAuth: { hash: `sha256:${'0'.repeat(64)}` } }]
  const { port } = await startRoutes(t, [{ ...text, edge }], { consumers })
  t.equal((await get(port, '/text', ['Origin: https://app.example.com'])).status, 401)
  const preflight = ['Origin: https://app.example.com', 'Access-Control-Request-Method: GET']
  t.match(await get(port, '/text', preflight, 'OPTIONS'), {
    status: 204,
    headers: { 'access-control-allow-origin': 'https://app.example.com' }
  })
  t.equal((await get(port, '/text')).status, 401)
  t.equal((await get(port, '/text')).status, 401)
  t.equal((await get(port, '/text')).status, 429)
})

t.test('handshakes of WebSockets are refused', async (t) => {
  const { port } = await startRoutes(t, routes)
  const fields = [
    'Upgrade: websocket',
    'Connection: upgrade',
    'Sec-WebSocket-Version: 13',
    'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=='
  ]
  const client = connect(port, `GET /bare HTTP/1.1\r\nHost: h\r\n${fields.join('\r\n')}\r\n\r\n`)
  t.equal(parse(await client.until('\r\n\r\n')).status, 403)
  client.socket.destroy()
})

t.test('explain, the list of routes, and metrics', async (t) => {
  const { server, port } = await startRoutes(t, routes, { admin: { host: '127.0.0.1', port: 0 } })
  await get(port, '/json')
  const admin = server.admin!
  t.match((await admin.inject('/admin/explain?path=/json')).json(), {
    route: 'json',
    direct: '201, application/json; charset=utf-8, 19 bytes',
    mesh: []
  })
  const listed = (await admin.inject('/admin/routes')).json() as { name: string; direct: string; service?: string }[]
  t.match(
    listed.find(({ name }) => name === 'json'),
    { direct: 'response 201', service: undefined, mesh: [] }
  )
  const metrics = (await admin.inject('/metrics')).body
  t.match(metrics, /jingwei_edge_requests_total\{.*route="json",method="GET",status="201".*\} 1/)
})
