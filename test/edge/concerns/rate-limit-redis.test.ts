// slow: starts Redis
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import t from 'tap'
import { CLOCK } from '../../../plugins/clock.ts'
import { parseConfig } from '../../../plugins/config.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { gatewayBefore, get, startEcho, startGateway } from '../../helpers/gateway.ts'
import { startRedis } from '../../helpers/redis.ts'

/** Returns a value of the gateway's metrics; undefined if there is none. */
async function metric({ server }: RunningGateway, series: string): Promise<number | undefined> {
  const line = (await server.metrics.metrics()).split('\n').find((each) => each.startsWith(`${series} `))
  return line === undefined ? undefined : Number(line.slice(series.length + 1))
}

const step = (gateway: RunningGateway, name: string) =>
  metric(gateway, `jingwei_edge_rate_limit_decisions_total{route="all",step="${name}"}`)

/** Starts Redis, and returns a function that starts gateways that share it. */
async function cluster(t: Test) {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const service = await startEcho()
  t.teardown(service.close)
  const client = new Redis(redis.url)
  t.teardown(() => client.disconnect())
  const start = async (edge: object, nodes = 1, more: object = {}) => {
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      // Long, so that a busy machine is not taken for an outage.
      redis: { url: redis.url, timeout: '2s' },
      edge,
      ...more
    })
    await eventually(async () => (await metric(gateway, 'jingwei_edge_redis_nodes')) === nodes, `${nodes} nodes`)
    return gateway
  }
  /** Returns the scripts that Redis has run. */
  const scripts = async () => {
    const calls = [...(await client.info('commandstats')).matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)]
    return calls.reduce((sum, [, count]) => sum + Number(count), 0)
  }
  return { redis, client, start, scripts }
}

async function statuses({ port }: RunningGateway, count: number, headers: string[] = []): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await get(port, '/', headers)).status)
  return all
}

for (const protocol of protocols) {
  t.test(`all windows of a request take one round trip over ${protocol}`, async (t) => {
    const { client, start, scripts } = await cluster(t)
    const limit = { store: 'redis' }
    const rateLimit = [
      { ...limit, max: 30, window: '1h' },
      { ...limit, max: 1000, window: '30d', algorithm: 'sliding-window' },
      { ...limit, max: 1000, window: '1h', algorithm: 'token-bucket', by: 'header:x-key', maxPerAddress: 500 }
    ]
    const gateway = await start({ rateLimit }, 1, { listen: listenFor(t, protocol) })
    const { ask } = anyClient(t, protocol, gateway.port)
    const before = await scripts()
    const all: number[] = []
    for (let i = 0; i < 29; i++) all.push((await ask('/')).status)
    t.same(new Set(all), new Set([200]))
    const ran = (await scripts()) - before
    // Besides, the node announces itself every five seconds.
    t.ok(ran >= 29 && ran < 35, `${ran} scripts for 29 requests`)
    await client.script('FLUSH')
    t.equal((await ask('/')).status, 200, 'a script that Redis has forgotten is loaded again')
    t.equal((await ask('/')).status, 429)
    t.equal(await step(gateway, 'redis'), 31)
    const known = await ask('/')
    t.equal(known.status, 429)
    t.match(known.headers['retry-after'], /^3(600|59\d)$/)
    t.equal(await step(gateway, 'redis'), 31, 'Redis is not asked again for a key that it has refused')
    t.equal(await step(gateway, 'known'), 1)
    t.equal(await step(gateway, 'share'), 0)
  })
}

for (const [algorithm, more] of [
  ['fixed-window', {}],
  ['sliding-window', {}],
  ['token-bucket', { max: 1, burst: 7 }]
] as const) {
  t.test(`two gateways share one ${algorithm}`, async (t) => {
    const { start } = await cluster(t)
    const rateLimit = { max: 7, window: '1h', store: 'redis', algorithm, ...more }
    const [one, two] = [await start({ rateLimit }), await start({ rateLimit }, 2)]
    const all = await Promise.all(Array.from({ length: 30 }, (_, i) => get((i % 2 ? one : two).port, '/')))
    t.equal(all.filter(({ status }) => status === 200).length, 7)
    t.equal(all.filter(({ status }) => status === 429).length, 23)
    t.equal((await step(one, 'share'))! + (await step(two, 'share'))!, 0)
  })
}

t.test('a sliding window and a bucket in Redis go on as time passes', async (t) => {
  const { start } = await cluster(t)
  for (const algorithm of ['sliding-window', 'token-bucket', 'fixed-window']) {
    const gateway = await start({ rateLimit: { max: 3, window: '2s', store: 'redis', algorithm } })
    const ask = async () => (await statuses(gateway, 1))[0]
    // At the same time, and again if a window ended meanwhile: a busy machine may need longer than a window for a few requests.
    await eventually(async () => (await Promise.all(Array.from({ length: 8 }, ask))).includes(429), algorithm)
    await eventually(async () => (await ask()) === 200, algorithm)
    await gateway.close()
  }
})

t.test('a request that one limit refuses uses nothing of the others', async (t) => {
  const { start, client } = await cluster(t)
  const rateLimit = [
    { max: 2, window: '1h', store: 'redis' },
    { max: 100, window: '30d', store: 'redis', by: 'route' },
    { max: 100, window: '1d', by: 'route' }
  ]
  const gateway = await start({ rateLimit: rateLimit.map((limit) => ({ ...limit, headers: 'ietf' })) })
  t.same(await statuses(gateway, 4), [200, 200, 429, 429])
  const keys = await client.keys('jingwei:rl:*')
  const values = await Promise.all(keys.map((key) => client.get(key)))
  t.same(values, ['2', '2'])
  await client.flushall()
  await sleep(5)
  const other = await get(gateway.port, '/', ['X-Forwarded-For: 192.0.2.1'])
  t.equal(other.status, 429, 'the refusal is believed for a while')
})

t.test('a quota survives restarts of the gateway', async (t) => {
  const { start } = await cluster(t)
  const rateLimit = { max: 5, window: '30d', store: 'redis', by: 'header:x-key', maxPerAddress: 100 }
  const first = await start({ rateLimit })
  t.same(await statuses(first, 3, ['X-Key: a']), [200, 200, 200])
  await first.close()
  const second = await start({ rateLimit })
  t.same(await statuses(second, 3, ['X-Key: a']), [200, 200, 429])
  const { headers } = await get(second.port, '/', ['X-Key: a'])
  t.match(headers['retry-after'], /^(2592000|25919\d\d)$/)
})

t.test('a quota survives a restart of Redis with persistence', async (t) => {
  const dir = t.testdir({})
  let redis = await startRedis({ dir })
  t.teardown(() => redis.stop())
  const service = await startEcho()
  t.teardown(service.close)
  const limit = { window: '30d', store: 'redis' }
  const gateway = await gatewayBefore(t, service.url, {
    admin: { port: 0 },
    redis: { url: redis.url, timeout: '2s' },
    edge: {
      rateLimit: [
        { ...limit, max: 5 },
        { ...limit, max: 1, burst: 6, algorithm: 'token-bucket', headers: 'ietf' }
      ]
    }
  })
  const isUp = (value: number) => async () => (await metric(gateway, 'jingwei_edge_redis_up')) === value
  await eventually(isUp(1), 'Redis')
  t.same(await statuses(gateway, 3), [200, 200, 200])
  const { port } = redis
  await redis.stop()
  await eventually(isUp(0), 'the outage')
  redis = await startRedis({ port, dir })
  await eventually(isUp(1), 'Redis to be asked again')
  const { status, headers } = await get(gateway.port, '/')
  t.match([status, headers['ratelimit-remaining'], headers.ratelimit], [200, '1', /r=2;/])
  t.same(await statuses(gateway, 2), [200, 429])
})

t.test('a quota of more than a day in memory is warned of', async (t) => {
  const warned = (rateLimit: object) => {
    const warnings: string[] = []
    const config = {
      services: { any: { instances: ['http://127.0.0.1:1'] } },
      routes: [{ name: 'all', match: { path: '/' }, service: 'any' }],
      redis: { url: 'redis://127.0.0.1:1' },
      edge: { rateLimit }
    }
    parseConfig(
      JSON.stringify(config),
      'gateway.yaml',
      {},
      ({ path, message }) => void warnings.push(`${path}: ${message}`)
    )
    return warnings
  }
  t.match(warned({ max: 1, window: '30d' }), [/^edge\.rateLimit\.window: a restart .* store: redis/])
  t.same(warned({ max: 1, window: '1d' }), [])
  t.same(warned({ max: 1, window: '30d', store: 'redis' }), [])
})

t.test('without Redis, each node applies its share of the limit', async (t) => {
  const { redis, start } = await cluster(t)
  const rateLimit = { max: 10, window: '1h', store: 'redis' }
  const one = await start({ rateLimit })
  const two = await start({ rateLimit }, 2)
  await eventually(
    async () => (await metric(one, 'jingwei_edge_redis_nodes')) === 2,
    'the first node to know the second'
  )
  t.same(await statuses(one, 2), [200, 200])
  redis.pause()
  const [a, b] = [await statuses(one, 6), await statuses(two, 7)]
  t.same(a, [200, 200, 200, 200, 429, 429], 'half of the eight that were left')
  t.same(b, [200, 200, 200, 200, 200, 429, 429], 'half of the limit: this node has not seen the two')
  t.equal(await step(one, 'share'), 6)
  t.equal(await metric(one, 'jingwei_edge_rate_limit_fallbacks_total{route="all"}'), 6)
  redis.resume()
  await eventually(async () => (await metric(one, 'jingwei_edge_redis_up')) === 1, 'Redis to be asked again')
  t.equal((await get(one.port, '/')).status, 200, 'Redis counts from where it was')
})

t.test('onFailure: open and closed', async (t) => {
  const { redis, start } = await cluster(t)
  const limit = { max: 1, window: '1h', store: 'redis' }
  const open = await start({ rateLimit: { ...limit, onFailure: 'open' } })
  const closed = await start({ rateLimit: { ...limit, onFailure: 'closed', headers: 'ietf' } }, 2)
  await redis.stop()
  await eventually(async () => (await metric(closed, 'jingwei_edge_redis_up')) === 0, 'the outage')
  await eventually(async () => (await metric(open, 'jingwei_edge_redis_up')) === 0, 'the outage')
  t.same(await statuses(open, 3), [200, 200, 200])
  t.equal(await step(open, 'open'), 3)
  const refused = await get(closed.port, '/')
  t.equal(refused.status, 503)
  t.equal(refused.headers['retry-after'], '1')
  t.match(JSON.parse(refused.body), { code: 'JW_RATE_LIMIT_UNAVAILABLE' })
  t.equal(await step(closed, 'closed'), 1)
})

t.test('limits before and after authentication take one round trip, and failed logins are counted', async (t) => {
  const { start, scripts } = await cluster(t)
  const rateLimit = [
    { max: 10, window: '1h', store: 'redis' },
    { max: 4, window: '1h', store: 'redis', by: 'consumer' }
  ]
  const gateway = await start({ jwt: { secret }, rateLimit })
  const as = (sub: string) => [`Authorization: Bearer ${token(claims({ sub }))}`]
  const before = await scripts()
  t.same(await statuses(gateway, 5, as('ann')), [200, 200, 200, 200, 429])
  t.same(await statuses(gateway, 2, as('bob')), [200, 200])
  t.same(await statuses(gateway, 4, ['Authorization: Bearer x']), [401, 401, 401, 401])
  const ran = (await scripts()) - before
  t.ok(ran <= 13, `${ran} scripts for 11 requests`)
  // The tenth unit is used by a request that no node has answered yet; the next refusals are known.
  await eventually(async () => (await get(gateway.port, '/', ['Authorization: Bearer x'])).status === 429, 'the limit')
  t.same(await statuses(gateway, 1, as('bob')), [429], 'the limit of the address protects the check of tokens')
})

t.test(
  'after a refusal that is no longer believed, one request is authenticated before Redis is asked again',
  async (t) => {
    const { redis, client } = await cluster(t)
    const service = await startEcho()
    t.teardown(service.close)
    const clock = { ahead: 0, now: () => performance.now() + clock.ahead, date: () => Date.now() }
    const shared = { window: '1h', store: 'redis' }
    const gateway = await startGateway(
      {
        admin: { port: 0 },
        redis: { url: redis.url, timeout: '20s' },
        edge: {
          jwt: { secret },
          rateLimit: [
            { ...shared, max: 2 },
            { ...shared, max: 100, by: 'consumer' }
          ]
        },
        services: { any: { instances: [service.url] } },
        routes: [{ name: 'all', match: { path: '/' }, service: 'any' }]
      },
      { before: (server) => void server.decorate(CLOCK, clock) }
    )
    t.teardown(() => gateway.close())
    await eventually(async () => (await metric(gateway, 'jingwei_edge_redis_up')) === 1, 'Redis')
    const guess = ['Authorization: Bearer x']
    await eventually(async () => (await get(gateway.port, '/', guess)).status === 429, 'the limit')
    clock.ahead += 11_000
    redis.pause()
    t.same(await statuses(gateway, 4, guess), [401, 429, 429, 429], 'while the question is on its way')
    redis.resume()
    await eventually(async () => (await metric(gateway, 'jingwei_edge_redis_up')) === 1, 'Redis')
    await client.flushall()
    clock.ahead += 11_000
    t.equal((await get(gateway.port, '/', guess)).status, 401)
    const valid = [`Authorization: Bearer ${token(claims())}`]
    await eventually(
      async () => (await get(gateway.port, '/', valid)).status === 200,
      'the answer that the limit is free'
    )
  }
)

for (const protocol of protocols) {
  t.test(`without Redis, the limit before authentication protects it over ${protocol}`, async (t) => {
    const { redis, start } = await cluster(t)
    const shared = { window: '1h', store: 'redis', headers: 'ietf' }
    const rateLimit = (more: object) => [
      { ...shared, ...more, max: 8, name: 'address' },
      { ...shared, max: 2, by: 'consumer', name: 'consumer' }
    ]
    const consumers = [{ name: 'own', jwt: { sub: 'own' }, edge: { rateLimit: { ...shared, max: 6 } } }]
    const gateway = await start({ jwt: { secret }, gatewayNodes: 2, rateLimit: rateLimit({}) }, 1, {
      consumers,
      listen: listenFor(t, protocol)
    })
    const closed = await start({ jwt: { secret }, rateLimit: rateLimit({ onFailure: 'closed' }) }, 2)
    await redis.stop()
    for (const each of [gateway, closed])
      await eventually(async () => (await metric(each, 'jingwei_edge_redis_up')) === 0, 'the outage')
    const { ask } = anyClient(t, protocol, gateway.port)
    const as = (sub: string) => ({ headers: { authorization: `Bearer ${token(claims({ sub }))}` } })
    const guess = { headers: { authorization: 'Bearer x' } }
    const first = await ask('/', as('ann'))
    t.equal(first.status, 200)
    t.equal(first.headers.ratelimit, '"address";r=3;t=3600, "consumer";r=0;t=3600', 'this node has half of each limit')
    t.equal((await ask('/', as('ann'))).status, 429, 'the limit of the consumer')
    t.equal(await step(gateway, 'share'), 2, 'each request is counted once')
    t.equal((await ask('/', as('own'))).status, 200)
    t.equal((await ask('/', guess)).status, 401)
    const statuses = [(await ask('/', guess)).status, (await ask('/', guess)).status, (await ask('/', guess)).status]
    t.same(statuses, [429, 429, 429], 'guesses that the limit of the address refuses are not verified')
    t.equal((await ask('/', as('bob'))).status, 429, 'nor can a client see whether a guess was right')
    t.equal(await step(gateway, 'share'), 7)
    const refused = await get(closed.port, '/', ['Authorization: Bearer x'])
    t.equal(refused.status, 503)
    t.match(JSON.parse(refused.body), { code: 'JW_RATE_LIMIT_UNAVAILABLE' })
  })
}

t.test('a consumer with limits of its own is within the limit of its address', async (t) => {
  const { start } = await cluster(t)
  const shared = { window: '1h', store: 'redis' }
  const rateLimit = [
    { ...shared, max: 5 },
    { ...shared, max: 100, by: 'consumer' }
  ]
  const named = (name: string, own: object | false) => ({ name, jwt: { sub: name }, edge: { rateLimit: own } })
  for (const consumer of [
    named('memory', { max: 100, window: '1h' }),
    named('redis', { ...shared, max: 100 }),
    named('none', false)
  ]) {
    const { name } = consumer
    const gateway = await start(
      { jwt: { secret }, rateLimit: rateLimit.map((limit) => ({ ...limit, name: `${name}-${limit.max}` })) },
      1,
      { consumers: [consumer] }
    )
    const headers = [`Authorization: Bearer ${token(claims({ sub: name }))}`]
    const all = await Promise.all(Array.from({ length: 20 }, () => get(gateway.port, '/', headers)))
    t.equal(all.filter(({ status }) => status === 200).length, 5, name)
    t.equal((await get(gateway.port, '/', headers)).status, 429, name)
    await gateway.close()
  }
})
