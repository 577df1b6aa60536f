/** CORS, authentication, rate limits and WebSockets together: their order, and what one learns from another. */

import { once } from 'node:events'
import { connect as connectTcp } from 'node:net'
import { connect as connectTls } from 'node:tls'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import cors from '../../../plugins/edge/concerns/cors/index.ts'
import jwt from '../../../plugins/edge/concerns/jwt/index.ts'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { corsOptions } from '../../helpers/edge/cors-options.ts'
import { edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { jwtOptions } from '../../helpers/edge/jwt-options.ts'
import { limitOptions } from '../../helpers/edge/rate-limit-options.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { echo, handshake, startWebSocketService } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { ask, gatewayBefore, get as http, parse, startEcho, startGateway } from '../../helpers/gateway.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const edgeApp = edgeAppWith(cors, rateLimit, jwt)
const origin = 'https://app.example.com'

const status = async (app: FastifyInstance, headers: Record<string, string> = {}) =>
  (await app.inject({ url: '/orders', headers })).statusCode
const statuses = async (app: FastifyInstance, times: number, headers = {}) => {
  const all: number[] = []
  for (let i = 0; i < times; i++) all.push(await status(app, headers))
  return all
}
const bearer = (sub: string | undefined, key = secret) => ({ authorization: `Bearer ${token(claims({ sub }), key)}` })

t.test('a preflight ends before authentication and rate limit, whose refusals a browser can read', async (t) => {
  const edge = { cors: corsOptions(), jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 1 }) }
  const app = await edgeApp([{ name: 'orders', preflightOnly: true, edge }])
  t.teardown(() => app.close())
  for (let i = 0; i < 3; i++) {
    const response = await app.inject({
      method: 'OPTIONS',
      url: '/orders',
      headers: { origin, 'access-control-request-method': 'POST' }
    })
    t.equal(response.statusCode, 204)
    t.equal(response.headers['ratelimit-limit'], undefined)
  }
  const statuses: number[] = []
  for (let i = 0; i < 2; i++) {
    const response = await app.inject({ url: '/orders', headers: { origin } })
    statuses.push(response.statusCode)
    t.equal(response.headers['access-control-allow-origin'], origin)
    t.equal(response.headers.vary, 'Origin')
  }
  t.same(statuses, [401, 429])
  const stranger = await app.inject({ url: '/orders', headers: { origin: 'https://evil.example.com' } })
  t.equal(stranger.statusCode, 429)
  t.equal(stranger.headers['access-control-allow-origin'], undefined)
})

t.test('a limit by consumer counts after authentication, at any address', async (t) => {
  const edge = { jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 2, by: 'consumer' }) }
  const app = await edgeApp([{ name: 'orders', edge }], { server: { trustProxy: true } })
  t.teardown(() => app.close())
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.1' }), 200)
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.2' }), 200)
  t.equal(await status(app, { ...bearer('ann'), 'x-forwarded-for': '192.0.2.3' }), 429)
  t.equal(await status(app, { ...bearer('bob'), 'x-forwarded-for': '192.0.2.1' }), 200)
  t.same(await statuses(app, 4), [401, 401, 401, 401], 'unauthenticated requests count for no consumer')
  t.equal(await status(app, bearer('ann', 'a forged secret, long enough for this')), 401)
  t.same(
    await statuses(app, 3, bearer(undefined)),
    [200, 200, 429],
    'a request without a consumer counts by its address'
  )
})

t.test('a limit by address counts before authentication', async (t) => {
  const edge = { jwt: jwtOptions({ secret }), rateLimit: limitOptions({ max: 2 }) }
  const app = await edgeApp([{ name: 'orders', edge }])
  t.teardown(() => app.close())
  t.same(await statuses(app, 3), [401, 401, 429])
})

t.test('a WebSocket handshake from a page of another origin is refused', async (t) => {
  const service = await startWebSocketService({ onPeer: echo })
  t.teardown(service.close)
  const tls = selfSigned(t)
  for (const listen of [{}, { tls }, { tls, http2: true }]) {
    const { port } = await gatewayBefore(t, service.url, {
      listen,
      routes: [
        { name: 'guarded', match: { path: '/guarded' }, service: 'any', edge: { cors: { origin: [origin] } } },
        { name: 'any', match: { path: '/any' }, service: 'any', edge: { cors: { origin: '*' } } },
        { name: 'unset', match: { path: '/unset' }, service: 'any' }
      ]
    })
    const shake = async (path: string, ...headers: string[]) => {
      const target = { port, host: '127.0.0.1', rejectUnauthorized: false }
      const socket = 'tls' in listen ? connectTls(target) : connectTcp(target)
      socket.write(handshake(path, ['Cookie: session=1', ...headers]))
      const [first] = (await once(socket, 'data')) as [Buffer]
      socket.destroy()
      return parse(first.toString('latin1'))
    }
    const evil = 'Origin: https://evil.example'
    const { status, body } = await shake('/guarded', evil)
    t.equal(status, 403)
    t.match(body, 'JW_ORIGIN_REFUSED')
    for (const other of ['null', 'https://app.example.com.evil.example', 'http://app.example.com', 'https://h.evil']) {
      t.equal((await shake('/guarded', `Origin: ${other}`)).status, 403, other)
    }
    t.equal((await shake('/guarded', `Origin: ${origin}`)).status, 101)
    t.equal((await shake('/guarded')).status, 101, 'a client without Origin is no browser')
    t.equal((await shake('/guarded', 'Origin: https://h')).status, 101, 'a page of the same host is accepted')
    t.equal((await shake('/any', evil)).status, 101)
    t.equal((await shake('/unset', evil)).status, 101)
  }
})

t.test(
  'the same sub of two issuers is two consumers, in limits, logs, splits, hashes and shared responses',
  async (t) => {
    const [a, b] = ['https://a.example', 'https://b|.example']
    const service = await startEcho()
    const instances = await Promise.all(Array.from({ length: 16 }, startEcho))
    t.teardown(() => Promise.all([service, ...instances].map(({ close }) => close())))
    const jwt = { secret, issuer: [a, b] }
    const hashed = {
      instances: instances.map(({ url }) => url),
      mesh: { balance: { policy: 'ring-hash', hashOn: 'consumer' } }
    }
    const limited = { jwt, rateLimit: { max: 1, window: '1m', by: 'consumer' } }
    const canary = [
      { service: 'hashed', match: { consumers: [`${a}|ann`] } },
      { service: 'any', weight: 1 }
    ]
    const gateway = await gatewayBefore(
      t,
      service.url,
      {
        services: { any: { instances: [service.url] }, hashed },
        routes: [
          { name: 'limited', match: { path: '/limited' }, service: 'any', edge: limited },
          { name: 'hashed', match: { path: '/hashed' }, service: 'hashed', edge: { jwt, host: 'upstream' } },
          { name: 'canary', match: { path: '/canary' }, split: canary, edge: { jwt, host: 'upstream' } }
        ]
      },
      { log: true }
    )
    const of = (iss: string, sub = 'ann') => [`Authorization: Bearer ${token(claims({ iss, sub }))}`]
    t.equal((await http(gateway.port, '/limited', of(a))).status, 200)
    t.equal((await http(gateway.port, '/limited', of(b))).status, 200)
    t.equal((await http(gateway.port, '/limited', of(a))).status, 429)
    t.equal((await http(gateway.port, '/limited', of(b))).status, 429)
    const ours = new URL(service.url).host
    t.not((await ask(gateway.port, '/canary', of(a))).headers.host, ours)
    t.equal((await ask(gateway.port, '/canary', of(b))).headers.host, ours)
    let apart = 0
    for (const sub of ['ann', 'bob', 'cat', 'dan', 'eve']) {
      const [one, other] = await Promise.all([a, b].map((iss) => ask(gateway.port, '/hashed', of(iss, sub))))
      if (one!.headers.host !== other!.headers.host) apart++
    }
    t.ok(apart > 0, `hashes differ for ${apart} of 5 consumers`)
    await eventually(() => gateway.log.filter(({ route }) => route === 'limited').length === 4)
    const names = new Set(gateway.log.filter(({ route }) => route === 'limited').map(({ consumer }) => consumer))
    t.strictSame([...names], ['https://a.example|ann', 'https://b%7C.example|ann'])
  }
)

for (const protocol of protocols) {
  t.test(`limits by consumer and by address apply over ${protocol}`, async (t) => {
    const echo = await startEcho()
    t.teardown(echo.close)
    const limit = { max: 1, window: '1m' }
    const jwt = { secret }
    const edges = {
      ip: { rateLimit: limit },
      header: { rateLimit: { ...limit, by: 'header:x-key' } },
      address: { rateLimit: { ...limit, max: 10, by: 'header:x-key', maxPerAddress: 1 } },
      consumer: { jwt, rateLimit: { ...limit, by: 'consumer' } }
    }
    const gateway = await startGateway(
      {
        listen: listenFor(t, protocol),
        services: { any: { instances: [echo.url] } },
        routes: Object.entries(edges).map(([name, edge]) => ({
          name,
          match: { path: `/${name}` },
          service: 'any',
          edge
        }))
      },
      { log: true }
    )
    t.teardown(gateway.close)
    const { ask } = anyClient(t, protocol, gateway.port)
    const headers = { 'x-key': 'hunter2', authorization: `Bearer ${token(claims())}` }
    const found = async (route: string, more: Record<string, string>) => {
      for (const status of [200, 429]) t.equal((await ask(`/${route}`, { headers: more })).status, status)
      const line = () => gateway.log.find((line) => line.route === route && line.status === 429)
      await eventually(() => line() !== undefined)
      return line()!.reason
    }
    t.equal(await found('ip', headers), 'rate_ip')
    t.equal(await found('header', headers), 'rate_header')
    t.equal(await found('address', headers), 'rate_max_per_address')
    t.equal(await found('consumer', headers), 'rate_consumer')
    t.notMatch(JSON.stringify(gateway.log), /hunter2/)
  })
}
