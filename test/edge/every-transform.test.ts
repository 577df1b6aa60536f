/** Every concern that changes requests and responses at once: bodies keep their bytes, over each protocol and on both response paths. */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import type { RequestListener } from 'node:http'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import type { Test } from 'tap'
import t from 'tap'
import type { AnyClient, Protocol } from '../helpers/edge/asking-client.ts'
import { anyClient, listenFor, protocols } from '../helpers/edge/asking-client.ts'
import { echo, handshake, opcodes, open, startWebSocketService } from '../helpers/edge/websocket.ts'
import { eventually } from '../helpers/eventually.ts'
import { raw, startGateway, startService } from '../helpers/gateway.ts'

t.setTimeout(120_000)

/** Bytes of all values, without a period that hides a lost or doubled chunk. */
function bytesOf(length: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0, state = 1; i < length; i++) {
    state = (state * 1_103_515_245 + 12_345) & 0x7fffffff
    bytes[i] = state >> 16
  }
  return bytes
}

const large = bytesOf(700_000)
const zipped = gzipSync(large)
const chunks = Array.from({ length: 300 }, (_, i) => large.subarray(i * 997, (i + 1) * 997))

const site = t.testdir({})
writeFileSync(join(site, 'large.bin'), large)

interface Seen {
  url: string
  headers: Record<string, string | undefined>
}

/** Reads the whole request, and responds as its path says. */
const service: RequestListener = async (request, response) => {
  const parts: Buffer[] = []
  for await (const chunk of request) parts.push(chunk as Buffer)
  const { url = '', headers } = request
  const body = Buffer.concat(parts)
  const path = url.split('?', 1)[0]!
  response.setHeader('x-powered-by', 'leak')
  response.setHeader('x-internal', 'leak')
  response.setHeader('set-cookie', ['s=1', 'debug=1'])
  response.setHeader('link', '</own.css>; rel=preload; as=style')
  if (path === '/seen') return void response.end(JSON.stringify({ url, headers }))
  if (path === '/echo') return void response.end(body)
  if (path === '/zipped') return void response.writeHead(200, { 'content-encoding': 'gzip' }).end(zipped)
  if (path === '/none') return void response.writeHead(204).end()
  if (path === '/same') return void response.writeHead(304, { etag: '"a"' }).end()
  if (path === '/part') {
    const range = { 'content-range': `bytes 100-1099/${large.length}`, 'content-length': 1000 }
    return void response.writeHead(206, range).end(large.subarray(100, 1100))
  }
  if (path === '/length') return void response.writeHead(200, { 'content-length': large.length }).end(large)
  if (path === '/trailers') {
    response.writeHead(200, { trailer: 'x-sum' })
    for (const chunk of chunks) response.write(chunk)
    response.addTrailers({ 'x-sum': '7' })
    return void response.end()
  }
  if (path === '/broken') {
    response.writeHead(200, { 'content-length': large.length })
    response.write(large.subarray(0, 5000), () => response.destroy())
    return
  }
  if (path === '/missing') return void response.writeHead(404).end(large)
  if (path === '/endless') return void response.writeHead(500).write(large)
  for (const chunk of chunks) {
    if (!response.write(chunk)) await once(response, 'drain')
  }
  response.end()
}

const edge = {
  host: 'inner.example',
  securityHeaders: true,
  cors: { origin: ['https://a.example'], credentials: true },
  csrf: {},
  userAgent: { deny: ['*bot*'] },
  earlyHints: { links: ['</app.css>; rel=preload; as=style'], when: 'always' },
  deprecation: { at: '2020-01-01', link: '/docs' },
  errorPages: { pages: { default: { text: 'page {{status}}' } }, upstream: true },
  headers: {
    request: {
      remove: ['x-debug'],
      rename: { 'x-old': 'x-new' },
      set: { 'x-set': '{request.method} {query.q|none} {headers.x-debug|none}' },
      add: { 'x-add': 'a' },
      append: { accept: 'text/last' }
    },
    response: {
      remove: ['x-internal'],
      set: { 'x-status': '{response.status}', 'x-was': '{response.headers.x-internal|none}' },
      append: { 'server-timing': 'gw' }
    }
  },
  query: { remove: ['admin'], rename: { q: 'query' }, set: { id: '{request.id}' } },
  cookies: {
    request: { remove: ['_ga'], set: { tenant: 'main' } },
    response: { remove: ['debug'], sameSite: 'Lax', secure: true }
  }
}

async function start(t: Test, protocol: Protocol, responsePath: 'raw' | 'reply') {
  const { url, close } = await startService((request, response) => void service(request, response))
  t.teardown(close)
  const gateway = await startGateway({
    listen: listenFor(t, protocol),
    services: { any: { instances: [url] } },
    edge: { ...edge, responsePath },
    routes: [
      { name: 'all', match: { path: '/' }, service: 'any' },
      { name: 'site', match: { path: '/site' }, path: { strip: true }, files: { root: site } },
      { name: 'fixed', match: { path: '/fixed' }, response: { body: 'fixed' } },
      { name: 'moved', match: { path: '/moved' }, redirect: { to: '/new' } }
    ]
  })
  t.teardown(gateway.close)
  return anyClient(t, protocol, gateway.port)
}

const cookieOfService = 's=1; SameSite=Lax; Secure'

async function requests(t: Test, client: AnyClient, protocol: Protocol): Promise<void> {
  const headers = { 'x-debug': '1', 'x-old': 'o', cookie: 'a=1; _ga=2; b=3', accept: 'text/plain' }
  const { body, hints } = await client.ask('/seen?a=%41&admin=1&q=+x&&z', { headers })
  const seen = JSON.parse(body.toString()) as Seen
  t.match(seen.url, /^\/seen\?a=%41&query=\+x&&z&id=[\w-]+$/)
  t.match(seen.headers, {
    host: 'inner.example',
    'x-new': 'o',
    'x-set': 'GET %20x 1',
    'x-add': 'a',
    accept: 'text/plain, text/last',
    cookie: 'a=1; b=3; tenant=main'
  })
  t.equal(seen.headers['x-debug'] ?? seen.headers['x-old'], undefined)
  t.strictSame(hints, protocol === 'HTTP/2' ? [103] : [])
  t.match(await client.ask('/echo', { method: 'POST', body: large }), { status: 200, isWhole: true, body: large })
  const call = client.begin('/echo', { method: 'POST', streams: true })
  for (const chunk of chunks) call.send(chunk)
  call.end()
  const echoed = await call.response
  t.ok(echoed.isWhole && echoed.body.equals(Buffer.concat(chunks)), 'a body in chunks')
}

async function responses(t: Test, client: AnyClient): Promise<void> {
  const whole = Buffer.concat(chunks)
  const none = Buffer.alloc(0)
  const page = (status: number) => Buffer.from(`page ${status}`)
  const cases: [method: string, path: string, status: number, body: Buffer][] = [
    ['GET', '/chunks', 200, whole],
    ['GET', '/length', 200, large],
    ['HEAD', '/length', 200, none],
    ['GET', '/zipped', 200, zipped],
    ['GET', '/part', 206, large.subarray(100, 1100)],
    ['GET', '/none', 204, none],
    ['GET', '/same', 304, none],
    ['GET', '/missing', 404, page(404)],
    ['HEAD', '/missing', 404, none],
    ['GET', '/endless', 500, page(500)]
  ]
  for (const [method, path, status, body] of cases) {
    const received = await client.ask(path, { method, headers: { origin: 'https://a.example' } })
    const isReplaced = status >= 400
    t.equal(received.status, status, path)
    t.ok(received.isWhole && received.body.equals(body), `${method} ${path}: the bytes of the body`)
    t.match(
      received.headers,
      {
        'x-status': String(status),
        'x-was': isReplaced ? 'none' : 'leak',
        'x-frame-options': 'SAMEORIGIN',
        'access-control-allow-origin': 'https://a.example',
        deprecation: '@1577836800',
        'server-timing': 'gw',
        vary: /Origin/
      },
      path
    )
    t.equal(received.headers['x-internal'] ?? received.headers['x-powered-by'], undefined, path)
    t.strictSame(received.headers['set-cookie'], isReplaced ? undefined : [cookieOfService], path)
    const link = '</docs>; rel="deprecation"'
    t.equal(received.headers.link, isReplaced ? link : `</own.css>; rel=preload; as=style, ${link}`, path)
  }
  const { trailers, body } = await client.ask('/trailers')
  t.ok(body.equals(whole))
  t.match(trailers, { 'x-sum': '7' })
  const broken = await client.begin('/broken').response
  t.equal(broken.isWhole, false, 'a response that breaks off is not whole')
  t.ok(broken.body.equals(large.subarray(0, broken.body.length)))
}

async function ownResponses(t: Test, client: AnyClient): Promise<void> {
  t.ok((await client.ask('/site/large.bin')).body.equals(large))
  const part = await client.ask('/site/large.bin', { headers: { range: 'bytes=5-99' } })
  t.ok(part.isWhole && part.body.equals(large.subarray(5, 100)))
  t.match(await client.ask('/fixed'), { status: 200, isWhole: true, body: Buffer.from('fixed') })
  t.match(await client.ask('/moved?q=a'), { status: 302, isWhole: true, headers: { location: /^\/new\?query=a&id=/ } })
  for (const [method, path, headers, status] of [
    ['GET', '/chunks', { 'user-agent': 'a bot' }, 403],
    ['POST', '/chunks', { origin: 'https://evil.example' }, 403],
    ['GET', '/site/none', {}, 404]
  ] as const) {
    const refused = await client.ask(path, { method, headers: { ...headers } })
    t.match(refused, { status, isWhole: true, body: Buffer.from(`page ${status}`) }, path)
    t.match(refused.headers, { 'x-status': String(status), 'x-was': 'none', 'x-frame-options': 'SAMEORIGIN' })
  }
}

t.test('WebSocket', async (t) => {
  const { url, requests, close } = await startWebSocketService({ onPeer: echo })
  t.teardown(close)
  const gateway = await startGateway({
    services: { any: { instances: [url] } },
    edge: { ...edge, headers: { ...edge.headers, request: { only: ['x-a'], ...edge.headers.request } } },
    routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
  })
  t.teardown(gateway.close)
  const fields = ['Origin: https://a.example', 'Sec-Fetch-Site: same-origin', 'X-B: 1', 'Cookie: _ga=1; a=2']
  const { headerSection, peer } = await open(gateway.port, '/ws?admin=1&q=2', fields)
  t.match(headerSection, /^HTTP\/1\.1 101 /)
  const [request] = requests
  t.match(request!.url, /^\/ws\?query=2&id=/)
  t.match(request!.headers, { host: 'inner.example', upgrade: 'websocket', cookie: 'tenant=main', 'x-set': /^GET 2/ })
  t.equal(request!.headers['x-b'] ?? request!.headers.origin, undefined)
  peer.send(opcodes.binary, large)
  await eventually(() => peer.frames.length > 0)
  t.ok(peer.frames[0]!.payload.equals(large))
  peer.socket.destroy()
  for (const refused of ['Origin: https://evil.example', 'User-Agent: a bot']) {
    const text = await raw(gateway.port, handshake('/ws', [refused]))
    t.match(text, /^HTTP\/1\.1 403 [\s\S]*x-status: 403[\s\S]*page 403$/, refused)
  }
})

for (const protocol of protocols) {
  for (const responsePath of ['raw', 'reply'] as const) {
    t.test(`${protocol}, ${responsePath}`, async (t) => {
      const client = await start(t, protocol, responsePath)
      await requests(t, client, protocol)
      await responses(t, client)
      await ownResponses(t, client)
    })
  }
}
