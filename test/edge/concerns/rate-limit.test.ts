// slow: starts Redis
import { once } from 'node:events'
import http2 from 'node:http2'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { Registry } from 'prom-client'
import t from 'tap'
import rateLimit from '../../../plugins/edge/concerns/rate-limit/index.ts'
import type { LimitOptions } from '../../../plugins/edge/concerns/rate-limit/options.ts'
import { LocalCounter } from '../../../plugins/edge/concerns/rate-limit/store.ts'
import { createMeter } from '../../../plugins/operations/metrics.ts'
import type { AppOptions } from '../../helpers/edge/edge-app.ts'
import { code, edgeAppWith } from '../../helpers/edge/edge-app.ts'
import { limitOptions } from '../../helpers/edge/rate-limit-options.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { gatewayBefore, get, startEcho } from '../../helpers/gateway.ts'
import { freePort } from '../../helpers/processes.ts'
import { startRedis } from '../../helpers/redis.ts'
import { selfSigned } from '../../helpers/self-signed.ts'

const edgeApp = edgeAppWith(rateLimit)

const status = async (app: FastifyInstance, headers: Record<string, string> = {}, url = '/orders') =>
  (await app.inject({ url, headers })).statusCode
const statuses = async (app: FastifyInstance, times: number, headers = {}) => {
  const all: number[] = []
  for (let i = 0; i < times; i++) all.push(await status(app, headers))
  return all
}

/** Waits until the node has connected to Redis; until then it counts on its own. */
async function connectedTo({ server }: RunningGateway): Promise<void> {
  while (!(await server.metrics.metrics()).includes('jingwei_edge_redis_up 1')) await sleep(5)
}

t.test('by address: max requests per window are accepted, as the headers show', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { rateLimit: limitOptions({ max: 2, window: 10_000 }) } }])
  t.teardown(() => app.close())
  const first = await app.inject('/orders')
  t.equal(first.statusCode, 200)
  t.match(first.headers, { 'ratelimit-limit': '2', 'ratelimit-remaining': '1', 'ratelimit-reset': '10' })
  t.equal(first.headers['retry-after'], undefined)
  t.equal((await app.inject('/orders')).headers['ratelimit-remaining'], '0')
  const refused = await app.inject('/orders')
  t.equal(refused.statusCode, 429)
  t.equal(code(refused), 'JW_RATE_LIMITED')
  t.match(refused.headers, { 'ratelimit-limit': '2', 'ratelimit-remaining': '0', 'retry-after': '10' })
  t.equal(refused.headers['x-ratelimit-limit'], undefined)
})

t.test('a window ends', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { rateLimit: limitOptions({ max: 1, window: 200 }) } }])
  t.teardown(() => app.close())
  t.same(await statuses(app, 2), [200, 429])
  await sleep(250)
  t.same(await statuses(app, 2), [200, 429])
})

t.test('addresses are counted separately, an IPv6 network as one', async (t) => {
  const limit = { rateLimit: limitOptions({ max: 1 }) }
  const app = await edgeApp([{ name: 'orders', edge: limit }], { server: { trustProxy: true } })
  t.teardown(() => app.close())
  const from = (address: string) => status(app, { 'x-forwarded-for': address })
  t.equal(await from('192.0.2.1'), 200)
  t.equal(await from('192.0.2.2'), 200)
  t.equal(await from('::ffff:192.0.2.1'), 429)
  t.equal(await from('2001:db8::1'), 200)
  t.equal(await from('2001:db8::2'), 429)
  t.equal(await from('2001:db8:0:1::1'), 200)
})

t.test('each route has its own count, over all its Fastify routes', async (t) => {
  const limit = { rateLimit: limitOptions({ max: 2 }) }
  const app = await edgeApp([
    { name: 'orders', also: ['/orders/*'], edge: limit },
    { name: 'users', edge: limit },
    { name: 'free', edge: { rateLimit: false } }
  ])
  t.teardown(() => app.close())
  t.equal(await status(app), 200)
  t.equal(await status(app, {}, '/orders/7'), 200)
  t.equal(await status(app, {}, '/orders/8'), 429)
  t.equal(await status(app, {}, '/users'), 200)
  const free = await app.inject('/free')
  t.equal(free.headers['ratelimit-limit'], undefined)
})

t.test('by header: each value separately, without a value by address', async (t) => {
  const app = await edgeApp([{ name: 'orders', edge: { rateLimit: limitOptions({ max: 1, by: 'header:X-Api-Key' }) } }])
  t.teardown(() => app.close())
  t.same(await statuses(app, 2, { 'x-api-key': 'a' }), [200, 429])
  t.same(await statuses(app, 2, { 'X-API-KEY': 'b' }), [200, 429])
  t.same(await statuses(app, 2), [200, 429])
  t.same(await statuses(app, 1, { 'x-api-key': '' }), [429], 'an empty value counts as no value')
  t.same(await statuses(app, 1, { 'x-api-key': '127.0.0.1' }), [200], 'a value is not taken for an address')
  const long = 'k'.repeat(4000)
  t.same(await statuses(app, 2, { 'x-api-key': `${long}1` }), [200, 429])
  t.same(await statuses(app, 2, { 'x-api-key': `${long}2` }), [200, 429])
})

t.test('by header: other spellings of the name are the same key, repeated ones are 400', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const limit = (by: string) => ({ rateLimit: { max: 1, window: '1m', by } })
  const { port } = await gatewayBefore(t, service.url, {
    routes: [
      { name: 'key', match: { path: '/key' }, service: 'any', edge: limit('header:x-api-key') },
      { name: 'credentials', match: { path: '/credentials' }, service: 'any', edge: limit('header:authorization') }
    ]
  })
  t.equal((await get(port, '/key', ['X-Api-Key: a'])).status, 200)
  t.equal((await get(port, '/key', ['X-Api-Key: a'])).status, 429)
  t.equal((await get(port, '/key', ['x_api_key: a'])).status, 429, 'many services treat these headers as equal')
  for (const second of ['X-Api-Key: b', 'x-api-key: a', 'X_API_KEY: b', 'x.api.key: b', 'X-Api-Key:']) {
    const { status, body } = await get(port, '/key', ['X-Api-Key: a', second])
    t.equal(status, 400, second)
    t.match(JSON.parse(body), { code: 'JW_SEVERAL_VALUES' }, second)
  }
  t.equal((await get(port, '/credentials', ['Authorization: Bearer a'])).status, 200)
  for (const other of ['Bearer a', 'bearer a', 'BEARER   a']) {
    t.equal((await get(port, '/credentials', [`Authorization: ${other}`])).status, 429, other)
  }
  t.equal((await get(port, '/credentials', ['Authorization: Bearer A'])).status, 200)
})

t.test('by header: maxPerAddress limits the address as well', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const redis = await startRedis()
  t.teardown(redis.stop)
  for (const store of ['memory', 'redis']) {
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      listen: { trustProxy: ['127.0.0.1'] },
      redis: { url: redis.url },
      edge: { rateLimit: { max: 2, window: '1m', by: 'header:x-api-key', maxPerAddress: 5, store } }
    })
    if (store === 'redis') await connectedTo(gateway)
    const from = (address: string, key: string) =>
      get(gateway.port, '/', [`X-Forwarded-For: ${address}`, `X-Api-Key: ${key}`])
    const statuses: number[] = []
    for (let i = 0; i < 7; i++) statuses.push((await from('192.0.2.1', `${store}${i}`)).status)
    t.same(statuses, [200, 200, 200, 200, 200, 429, 429], store)
    const refused = await from('192.0.2.1', 'z')
    t.match(refused.headers, { 'ratelimit-limit': '5', 'ratelimit-remaining': '0' })
    t.match(refused.headers['retry-after'], /^(59|60)$/)
    t.match(JSON.parse(refused.body), { code: 'JW_RATE_LIMITED' })
    t.equal((await from('192.0.2.2', 'a')).status, 200, 'another address has its own limit')
    t.equal((await from('192.0.2.3', 'a')).status, 200, 'the same key from a third address is below the limit')
    t.equal((await from('192.0.2.4', 'a')).status, 429, 'the limit of the key applies at any address')
  }
})

t.test('by header: the limit applies over HTTP/2 and in Redis', async (t) => {
  const service = await startEcho()
  t.teardown(service.close)
  const redis = await startRedis()
  t.teardown(redis.stop)
  for (const store of ['memory', 'redis']) {
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      listen: { tls: selfSigned(t), http2: true },
      redis: { url: redis.url },
      edge: { rateLimit: { max: 1, window: '1m', by: 'header:x-api-key', store } }
    })
    if (store === 'redis') await connectedTo(gateway)
    const session = http2.connect(gateway.url, { rejectUnauthorized: false })
    const ask = async (headers: http2.OutgoingHttpHeaders) => {
      const stream = session.request(headers).resume()
      const [fields] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders]
      return fields[':status' as never]
    }
    t.equal(await ask({ 'x-api-key': 'a' }), 200, store)
    t.equal(await ask({ 'x-api-key': 'a' }), 429, store)
    t.equal(await ask({ 'x-api-key': ['a', 'b'] }), 400, store)
    t.equal(await ask({ 'x-api-key': 'a', x_api_key: 'b' }), 400, store)
    session.close()
  }
})

t.test('the keys in memory are bounded, and no key is reset by a flood of others', async (t) => {
  const counter = new LocalCounter(60_000, undefined, 1000)
  const hit = (key: string) => counter.admit(key, Number.POSITIVE_INFINITY)!.current
  let regular = 0
  for (let i = 1; i <= 5000; i++) {
    hit(`flood${i}`)
    regular = hit('regular')
  }
  t.equal(regular, 5000, 'a key in use is never evicted')
  t.equal(hit('flood4990'), 2, 'a recent key is kept')
  t.ok(hit('flood1') >= 2, 'an unused key is evicted, and keeps its count')
})

// ---- Redis --------------------------------------------------------------------------------------

const timeout = 50
/** The timeout, plus the tolerance for a busy machine. */
const patience = timeout + 150

interface Cluster {
  url: string
  limit?: Partial<LimitOptions>
  options?: AppOptions
}

const shared = ({ url, limit, options }: Cluster) =>
  edgeApp([{ name: 'orders', edge: { rateLimit: limitOptions({ store: 'redis', ...limit }) } }], {
    redis: { url, timeout },
    ...options
  })

/** Returns a request's status and its duration in milliseconds. */
async function timed(app: FastifyInstance): Promise<[number, number]> {
  const start = performance.now()
  const result = await status(app)
  return [result, performance.now() - start]
}

/** Collects log lines. */
function logger(lines: string[]) {
  return { level: 'info', stream: { write: (line: string) => lines.push(JSON.parse(line).msg) } }
}

/** A registry as in the gateway, and a function that reads its values. */
function metrics() {
  const registry = new Registry()
  const before = (fastify: FastifyInstance) => {
    const meter = createMeter(registry)
    fastify.decorate('meter', { ...meter, lasting: meter })
  }
  const value = async (name: string) => {
    const metric = await registry.getSingleMetric(name)?.get()
    return metric?.values[0]?.value
  }
  return { before, value, up: async () => (await value('jingwei_edge_redis_up')) === 1 }
}

t.test('two gateways with one Redis share one limit', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const [a, b] = [metrics(), metrics()]
  const limit = { max: 10, window: 2000 }
  const one = await shared({ url: redis.url, limit, options: { before: a.before } })
  const two = await shared({ url: redis.url, limit, options: { before: b.before } })
  t.teardown(() => Promise.all([one.close(), two.close()]))
  await Promise.all([one.ready(), two.ready()])
  await eventually(async () => (await a.up()) && (await b.up()), 'both gateways to connect to Redis')

  const all = await Promise.all(Array.from({ length: 30 }, (_, i) => status(i % 2 ? one : two)))
  t.equal(all.filter((code) => code === 200).length, 10)
  t.equal(all.filter((code) => code === 429).length, 20)
  const { headers } = await two.inject('/orders')
  t.match(headers, { 'ratelimit-limit': '10', 'retry-after': /^[12]$/ })
  t.equal(await a.value('jingwei_edge_rate_limit_fallbacks_total'), 0)
  await sleep(1000)
  t.equal(await status(one), 429)
  await sleep(1100)
  t.equal(await status(one), 200, 'requests do not extend the window')
})

t.test(
  'while Redis hangs, requests are served at most one timeout late, and each node applies the limit',
  async (t) => {
    const redis = await startRedis()
    t.teardown(() => redis.stop())
    const lines: string[] = []
    const m = metrics()
    const app = await shared({
      url: redis.url,
      limit: { max: 12, window: 60_000 },
      options: { before: m.before, server: { logger: logger(lines), disableRequestLogging: true } }
    })
    t.teardown(() => app.close())
    await app.ready()
    await eventually(m.up, 'connected')
    t.same(await statuses(app, 2), [200, 200])

    redis.pause()
    const first = await Promise.all([timed(app), timed(app), timed(app)])
    for (const [result, ms] of first) {
      t.equal(result, 200)
      t.ok(ms >= timeout - 5 && ms < patience, `waited ${ms} ms`)
    }
    t.equal(await m.up(), false)
    for (let i = 0; i < 5; i++) {
      const [result, ms] = await timed(app)
      t.equal(result, 200)
      t.ok(ms < timeout - 5, `${ms} ms: the node does not query an unavailable Redis`)
    }
    t.equal(await m.value('jingwei_edge_rate_limit_fallbacks_total'), 8)
    t.same(await statuses(app, 3), [200, 200, 429], 'the node continues from its count of two')
    await sleep(1200)
    t.equal((await timed(app))[0], 429, 'hanging probes change nothing')
    t.same(lines, ['Redis is unavailable: this node applies rate limits on its own'])

    redis.resume()
    await eventually(m.up, 'the node to query Redis again')
    t.same(lines, [
      'Redis is unavailable: this node applies rate limits on its own',
      'Redis responds again: rate limits are shared with the other nodes'
    ])
    await app.inject('/orders')
    t.equal(await m.value('jingwei_edge_rate_limit_fallbacks_total'), 12, 'Redis counts again')
  }
)

t.test('while Redis restarts, no request fails or waits', async (t) => {
  const redis = await startRedis()
  const m = metrics()
  const app = await shared({ url: redis.url, limit: { max: 10_000 }, options: { before: m.before } })
  t.teardown(() => app.close())
  await app.ready()
  await eventually(m.up, 'connected')
  const results: [number, number][] = []
  let done = false
  const traffic = (async () => {
    while (!done) {
      results.push(await timed(app))
      await sleep(2)
    }
  })()
  await sleep(50)
  await redis.stop()
  await eventually(async () => !(await m.up()), 'the disconnect to be noticed')
  const again = await startRedis({ port: redis.port })
  t.teardown(() => again.stop())
  await eventually(m.up, 'the reconnect')
  await sleep(50)
  done = true
  await traffic
  t.same(new Set(results.map(([result]) => result)), new Set([200]))
  t.ok(Math.max(...results.map(([, ms]) => ms)) < patience)
})

t.test('without Redis at the start, the node counts on its own', async (t) => {
  const lines: string[] = []
  const port = await freePort()
  const m = metrics()
  const app = await shared({
    url: `redis://127.0.0.1:${port}`,
    limit: { max: 2 },
    options: { before: m.before, server: { logger: logger(lines), disableRequestLogging: true } }
  })
  t.teardown(() => app.close())
  await app.ready()
  const results = [await timed(app), await timed(app), await timed(app)]
  t.same(
    results.map(([result]) => result),
    [200, 200, 429]
  )
  for (const [, ms] of results) t.ok(ms < patience)
  await sleep(300)
  t.same(lines, ['Redis is unavailable: this node applies rate limits on its own'], 'the outage is logged once')
  t.equal(await m.up(), false)
  const redis = await startRedis({ port })
  t.teardown(() => redis.stop())
  await eventually(m.up, 'Redis to be found after its start')
})

t.test('the limit works without a metrics registry, and closes while Redis hangs', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const app = await shared({ url: redis.url, limit: { max: 1 } })
  await app.ready()
  await sleep(200)
  t.same(await statuses(app, 2), [200, 429])
  redis.pause()
  await status(app)
  const start = performance.now()
  await app.close()
  t.ok(performance.now() - start < 500)
})

t.test('a shared limit without `redis` stops the start', async (t) => {
  await t.rejects(edgeApp([{ name: 'orders', edge: { rateLimit: limitOptions({ store: 'redis' }) } }]), {
    message: /redis\.url/
  })
})
