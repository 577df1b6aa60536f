// A header that a service trusts on one route cannot be sent to it by a client over another route.
import http2 from 'node:http2'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import t from 'tap'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { echo, open, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { Seen } from '../../helpers/gateway.ts'
import { ask, connect, raw, startEcho, startGateway, startService } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const edge = { jwt: { secret, forward: { sub: 'x-user-id' } } }
const forged = ['X-User-Id: eve', 'x_user_id: eve', 'X-User_ID: eve', 'x.user.id: eve']
const bearer = `Authorization: Bearer ${token(claims())}`

const users = ({ rawHeaders }: Pick<Seen, 'rawHeaders'>): string[] =>
  rawHeaders.filter((_, i) => /^x.user.id$/i.test(rawHeaders[i - 1] ?? '') && i % 2 === 1)

async function gatewayFor(t: Test, config: object, before?: (server: FastifyInstance) => void) {
  const gateway = await startGateway(config, before === undefined ? {} : { before })
  t.teardown(gateway.close)
  return gateway
}

t.test('a header that a route sets is removed on another route to the same service', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const guarded = { name: 'guarded', match: { path: '/me' }, service: 'users', edge }
  const open = { name: 'open', match: { path: '/open' }, service: 'users' }
  for (const routes of [
    [guarded, open],
    [open, guarded]
  ]) {
    const { port } = await gatewayFor(t, { services: { users: { instances: [service.url] } }, routes })
    t.strictSame(users(await ask(port, '/open', forged)), [])
    t.strictSame(users(await ask(port, '/open', [...forged, bearer])), [])
    t.strictSame(users(await ask(port, '/me', [...forged, bearer])), ['ann'])
  }
})

t.test('a service without such a route gets the header of the client', async (t) => {
  const service = await startEcho()
  const other = await startEcho()
  t.teardown(() => Promise.all([service.close(), other.close()]))
  const { port } = await gatewayFor(t, {
    services: { users: { instances: [service.url] }, other: { instances: [other.url] } },
    routes: [
      { name: 'guarded', match: { path: '/me' }, service: 'users', edge },
      { name: 'other', match: { path: '/other' }, service: 'other' }
    ]
  })
  t.strictSame(users(await ask(port, '/other', ['X-User-Id: eve'])), ['eve'])
})

t.test('the header is removed on every path to the service: split, fallback, mirror and another name', async (t) => {
  const service = await startEcho()
  const seen: Seen['rawHeaders'][] = []
  const shadow = await startService((request, response) => {
    seen.push(request.rawHeaders)
    response.end()
  })
  t.teardown(() => Promise.all([service.close(), shadow.close()]))
  const gone = { instances: ['http://127.0.0.1:1'] }
  const fallback = [{ service: 'users' }]
  const here = { instances: [service.url] }
  const ways: Record<string, { services?: object; route: object }> = {
    'a share of a split': { route: { split: [{ service: 'users', weight: 1 }, { service: 'gone' }] } },
    "a route's fallback": { route: { service: 'gone', mesh: { fallback } } },
    "a service's fallback": { services: { gone: { ...gone, mesh: { fallback } } }, route: { service: 'gone' } },
    "a fallback's fallback": {
      services: {
        gone: { ...gone, mesh: { fallback: [{ service: 'too' }] } },
        too: { ...gone, mesh: { fallback } }
      },
      route: { service: 'gone' }
    },
    'another name for its instances': { services: { alias: here }, route: { service: 'alias' } }
  }
  for (const [way, { services, route }] of Object.entries(ways)) {
    const { port } = await gatewayFor(t, {
      services: { users: here, gone, ...services },
      routes: [
        { name: 'guarded', match: { path: '/me' }, service: 'users', edge },
        { name: 'open', match: { path: '/open' }, ...route }
      ]
    })
    t.strictSame(users(await ask(port, '/open', forged)), [], way)
  }

  const guardedShadow = { name: 'guarded', match: { path: '/me' }, service: 'shadow', edge }
  const mirrored = { name: 'open', match: { path: '/open' }, service: 'users', mesh: { mirror: { service: 'shadow' } } }
  const { port } = await gatewayFor(t, {
    services: { users: here, shadow: { instances: [shadow.url] } },
    routes: [guardedShadow, mirrored]
  })
  await ask(port, '/open', forged)
  await eventually(() => seen.length > 0)
  t.strictSame(users({ rawHeaders: seen[0]! }), [], 'the mirrored request has no forged header')

  const onlySplit = { split: [{ service: 'other', weight: 1 }, { service: 'users' }] }
  const reverse = await gatewayFor(t, {
    services: { users: here, other: gone },
    routes: [
      { name: 'guarded', match: { path: '/me' }, ...onlySplit, edge },
      { name: 'open', match: { path: '/open' }, service: 'users' }
    ]
  })
  t.strictSame(
    users(await ask(reverse.port, '/open', forged)),
    [],
    'the guarded route reaches the service by its split'
  )
})

t.test('dropHeaders of one route apply on the other routes to its service', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const routes = ['one', 'two'].map((name) => ({ name, match: { path: `/${name}` }, service: 'users' }))
  const { port } = await gatewayFor(t, { services: { users: { instances: [service.url] } }, routes }, (server) => {
    server.addHook('onRoute', (routeOptions) => {
      if (routeOptions.config?.route?.name !== 'one') return
      routeOptions.config = { ...routeOptions.config, dropHeaders: ['x-user-id'] }
    })
  })
  t.strictSame(users(await ask(port, '/two', forged)), [])
})

t.test('the header is removed over HTTP/2, from WebSocket handshakes and from trailers', async (t) => {
  const trailers: string[] = []
  const service = await startService((request, response) => {
    const { rawHeaders, rawTrailers } = request
    request.resume().on('end', () => {
      trailers.push(...request.rawTrailers)
      response.end(JSON.stringify({ rawHeaders, rawTrailers }))
    })
  })
  const sockets = await startWebSocketService({ onPeer: echo })
  t.teardown(() => Promise.all([service.close(), sockets.close()]))
  const config = (url: string) => ({
    services: { users: { instances: [url] } },
    routes: [
      { name: 'guarded', match: { path: '/me' }, service: 'users', edge },
      { name: 'open', match: { path: '/open' }, service: 'users' }
    ]
  })

  const tls = await gatewayFor(t, { listen: { tls: selfSigned(t), http2: true }, ...config(service.url) })
  const session = http2.connect(tls.url, { rejectUnauthorized: false })
  const stream = session.request({ ':path': '/open', 'x-user-id': 'eve', x_user_id: 'eve' })
  const chunks: Buffer[] = []
  for await (const chunk of stream as AsyncIterable<Buffer>) chunks.push(chunk)
  session.close()
  t.strictSame(users(JSON.parse(Buffer.concat(chunks).toString()) as Seen), [], 'HTTP/2')

  const plain = await gatewayFor(t, config(service.url))
  const lines = [
    'POST /open HTTP/1.1',
    'Host: h',
    'Transfer-Encoding: chunked',
    'Connection: close',
    'Trailer: X-User-Id'
  ]
  await raw(plain.port, `${lines.join('\r\n')}\r\n\r\n1\r\nx\r\n0\r\nX-User-Id: eve\r\nX-Sum: 1\r\n\r\n`)
  t.strictSame(trailers, ['x-sum', '1'], 'trailers')

  const upgrading = await gatewayFor(t, config(sockets.url))
  const { peer } = await open(upgrading.port, '/open', forged)
  t.strictSame(users(sockets.requests[0]!), [], 'the WebSocket handshake has no forged header')
  peer.close(1000)
  await peer.closed()
})

t.test('the cost of thousands of routes is linear', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const many = Array.from({ length: 2000 }, (_, i) => ({
    name: `r${i}`,
    match: { path: `/r${i}` },
    service: 'users',
    ...(i % 2 === 0 && { edge })
  }))
  const { port } = await gatewayFor(t, { services: { users: { instances: [service.url] } }, routes: many })
  const client = connect(port, `GET /r1999 HTTP/1.1\r\nHost: h\r\nX-User-Id: eve\r\nConnection: close\r\n\r\n`)
  const { text } = await client.closed
  t.match(text, /^HTTP\/1\.1 200 /)
  t.notMatch(text, /eve/)
})
