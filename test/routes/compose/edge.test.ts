// Composed routes behind the edge: concerns, TLS and HTTP/2, preflights, metrics, explain.
import type { IncomingMessage, ServerResponse } from 'node:http'
import http2 from 'node:http2'
import t from 'tap'
import { eventually } from '../../helpers/eventually.ts'
import { connect, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'
import { json, startComposed } from './services.ts'

const a = (_request: IncomingMessage, response: ServerResponse) => json(response, { a: 1 })
const calls = {
  one: { service: 'a', path: '/1', group: 'one' },
  two: { service: 'a', path: '/{calls.one/a}', group: 'two', required: false }
}

t.test('over TLS and HTTP/2', async (t) => {
  const listen = { tls: selfSigned(t), http2: true }
  const { port } = await startComposed(t, { services: { a }, compose: { calls }, more: { listen } })
  const session = http2.connect(`https://127.0.0.1:${port}`, { rejectUnauthorized: false })
  t.teardown(() => session.destroy())
  const ask = (headers: http2.OutgoingHttpHeaders) =>
    new Promise<{ headers: http2.IncomingHttpHeaders; text: string }>((resolve, reject) => {
      let text = ''
      let received: http2.IncomingHttpHeaders = {}
      const stream = session.request(headers)
      stream.on('response', (fields) => {
        received = fields
      })
      stream.on('data', (chunk: Buffer) => {
        text += String(chunk)
      })
      stream.on('end', () => resolve({ headers: received, text }))
      stream.on('error', reject)
      stream.end()
    })
  const got = await ask({ ':path': '/c/1' })
  t.equal(got.text, '{"one":{"a":1},"two":{"a":1}}')
  t.match(got.headers, { ':status': 200, 'x-jingwei-complete': 'true', 'content-length': '29' })
  const head = await ask({ ':path': '/c/1', ':method': 'HEAD' })
  t.match(head, { text: '', headers: { ':status': 200, 'content-length': '29' } })
})

t.test('preflights, and OPTIONS', async (t) => {
  const edge = { cors: { origin: ['https://app.example.com'] } }
  const { url } = await startComposed(t, { services: { a }, compose: { calls }, route: { edge } })
  const preflight = await fetch(`${url}/c/1`, {
    method: 'OPTIONS',
    headers: { origin: 'https://app.example.com', 'access-control-request-method': 'GET' }
  })
  t.equal(preflight.status, 204)
  t.match(preflight.headers.get('access-control-allow-methods'), 'GET')
  const options = await fetch(`${url}/c/1`, { method: 'OPTIONS' })
  t.equal(options.status, 405)
})

t.test('authentication and limits come before the calls', async (t) => {
  let callCount = 0
  const counted = (request: IncomingMessage, response: ServerResponse) => {
    callCount++
    a(request, response)
  }
  const secret = 'a-secret-that-is-long-enough-for-this-test'
  const jwt = { services: { a: counted }, compose: { calls }, route: { edge: { jwt: { secret } } } }
  const guarded = await startComposed(t, jwt)
  t.equal((await fetch(`${guarded.url}/c/1`)).status, 401)
  t.equal(callCount, 0)
  const limited = await startComposed(t, {
    services: { a: counted },
    compose: { calls },
    route: { edge: { rateLimit: { max: 1, window: '1m' } } }
  })
  t.equal((await fetch(`${limited.url}/c/1`)).status, 200)
  t.equal((await fetch(`${limited.url}/c/1`)).status, 429)
  t.equal(callCount, 2)
})

t.test('headers that concerns set for services', async (t) => {
  const seen: unknown[] = []
  const noting = (request: IncomingMessage, response: ServerResponse) => {
    seen.push(request.headers['x-user'])
    a(request, response)
  }
  const before = (server: { addHook: (name: string, hook: (request: never) => Promise<void>) => void }) =>
    server.addHook('onRequest', async (request: { upstreamHeaders: string[] | null }) => {
      request.upstreamHeaders = [...(request.upstreamHeaders ?? []), 'x-user', 'ada']
    })
  const { url } = await startComposed(t, { services: { a: noting }, compose: { calls }, before: before as never })
  await fetch(`${url}/c/1`, { headers: { 'x-user': 'evil' } })
  t.strictSame(seen, ['ada', 'ada'])
})

t.test('a client that is slow within its body, and one that leaves', async (t) => {
  const compose = { calls: { one: { service: 'a', path: '/', query: { q: '{body/q}' } } } }
  const more = { listen: { timeouts: { bodyIdle: '300ms' } } }
  let callCount = 0
  const counted = (request: IncomingMessage, response: ServerResponse) => {
    callCount++
    a(request, response)
  }
  const { port, log } = await startComposed(t, { services: { a: counted }, compose, more })
  const head = 'POST /c/1 HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"q":'
  const { text } = await connect(port, head).closed
  t.match(text, /^HTTP\/1\.1 408 /)
  t.match(text, 'JW_BODY_TIMEOUT')
  const leaving = connect(port, head)
  const lines = () => log.filter(({ msg }) => msg === 'request')
  await eventually(() => leaving.socket.bytesWritten > 0)
  leaving.socket.resetAndDestroy()
  await eventually(() => lines().length === 2)
  t.match(lines()[1], { status: 499, error: 'JW_CLIENT_GONE' })
  t.strictSame(
    log.filter(({ level }) => Number(level) >= 40),
    [],
    'nothing else is logged'
  )
  t.equal(callCount, 0)
})

t.test('a handshake of a WebSocket', async (t) => {
  const { port } = await startComposed(t, { services: { a }, compose: { calls } })
  const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13'
  const client = connect(
    port,
    `GET /c/1 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n${key}\r\n\r\n`
  )
  t.teardown(() => client.socket.destroy())
  const text = await client.until('\r\n\r\n')
  t.match(text, /^HTTP\/1\.1 403 /)
  t.match(text, 'JW_UPGRADE_REFUSED')
})

t.test('without the mesh', async (t) => {
  const service = await startService(a)
  t.teardown(service.close)
  const { url, server } = await startComposed(t, {
    services: {},
    compose: { calls },
    more: { mesh: false, services: { a: { instances: [service.url] } }, admin: { port: 0 } }
  })
  const response = await fetch(`${url}/c/1`)
  t.strictSame(await response.json(), { one: { a: 1 }, two: { a: 1 } })
  t.match((await server.admin!.inject('/admin/explain?path=/c/1')).json(), {
    calls: [{ call: 'one' }, { call: 'two' }]
  })
  await service.close()
  t.match(await (await fetch(`${url}/c/1`)).json(), { statusCode: 502, code: 'JW_UPSTREAM_REFUSED' })
})

t.test('explain and routes show the calls', async (t) => {
  const more = { admin: { host: '127.0.0.1', port: 0 } }
  const { server, url } = await startComposed(t, { services: { a }, compose: { calls }, more })
  await fetch(`${url}/c/1`)
  const admin = server.admin!
  const explained = (await admin.inject('/admin/explain?path=/c/1')).json()
  t.match(explained, {
    route: 'composed',
    calls: [
      { call: 'one', method: 'GET', service: 'a', path: '/1', after: [], required: true },
      { call: 'two', service: 'a', after: ['one'], required: false }
    ],
    mesh: [{ service: 'a' }, { service: 'a' }]
  })
  const [route] = (await admin.inject('/admin/routes')).json()
  t.match(route, { name: 'composed', responsePath: 'reply', calls: [{ call: 'one' }, { call: 'two' }] })
  const metrics = (await admin.inject('/metrics')).body
  t.match(metrics, /jingwei_edge_requests_total\{.*route="composed",method="GET",status="200".*\} 1/)
})

t.test('a metric counts the parts that responses lack, by route and call', async (t) => {
  const more = { admin: { host: '127.0.0.1', port: 0 } }
  const flaky = (request: { url?: string }, response: ServerResponse) =>
    json(response, { id: 7 }, {}, request.url === '/bad' ? 500 : 200)
  const { server, url } = await startComposed(t, {
    services: { a: flaky },
    more,
    compose: {
      calls: {
        main: { service: 'a', path: '/' },
        bad: { service: 'a', path: '/bad', group: 'bad', required: false },
        after: { service: 'a', path: '/{calls.bad/id}', group: 'after', required: false },
        good: { service: 'a', path: '/good', group: 'good', required: false }
      }
    }
  })
  const counted = async () => {
    const { body } = await server.admin!.inject('/metrics')
    return body.split('\n').filter((line) => line.startsWith('jingwei_edge_missing_parts_total'))
  }
  const series = (call: string, count: number) =>
    `jingwei_edge_missing_parts_total{route="composed",call="${call}"} ${count}`
  t.strictSame((await counted()).sort(), [series('after', 0), series('bad', 0), series('good', 0)])
  for (let i = 0; i < 2; i++) {
    const response = await fetch(`${url}/c/1`)
    t.equal(response.headers.get('x-jingwei-missing'), 'after, bad')
    t.strictSame(await response.json(), { id: 7, good: { id: 7 } })
  }
  t.strictSame((await counted()).sort(), [series('after', 2), series('bad', 2), series('good', 0)])
})
