// slow: starts Redis
import diagnostics from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import t from 'tap'
import { algorithms } from '../../../plugins/edge/concerns/rate-limit/algorithms.ts'
import { Entries } from '../../../plugins/edge/concerns/rate-limit/entries.ts'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { eventually } from '../../helpers/eventually.ts'
import type { RunningGateway } from '../../helpers/gateway.ts'
import { gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'
import { startRedis } from '../../helpers/redis.ts'

setFlagsFromString('--expose-gc')
/** Channels of requests that have arrived, over HTTP/1.1 and HTTP/2. */
const arrivals = ['http.server.request.start', 'http2.server.stream.start']
const collectGarbage = runInNewContext('gc') as () => void

for (const protocol of protocols) {
  t.test(`costHeader over ${protocol}: the service states what a request has used`, async (t) => {
    const service = await startService((request, response) => {
      const cost = new URL(request.url!, 'http://h').searchParams.get('cost')
      response.writeHead(200, { 'X-Cost': cost ?? '', 'X-Cost-Unit': 'token' }).end('x')
    })
    t.teardown(service.close)
    const redis = await startRedis()
    t.teardown(() => redis.stop())
    const limit = { max: 10, window: '1h', costHeader: 'X-Cost' }
    const edges = {
      memory: { rateLimit: limit },
      bucket: { rateLimit: { ...limit, algorithm: 'token-bucket', max: 1, burst: 10 } },
      reply: { rateLimit: limit, responsePath: 'reply' },
      kept: { rateLimit: { ...limit, keepCostHeader: true } },
      redis: { rateLimit: { ...limit, store: 'redis' } }
    }
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      listen: listenFor(t, protocol),
      redis: { url: redis.url, timeout: '2s' },
      routes: Object.entries(edges).map(([name, edge]) => ({ name, match: { path: `/${name}` }, service: 'any', edge }))
    })
    const { ask } = anyClient(t, protocol, gateway.port)
    const { metrics } = gateway.server
    await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
    for (const name of Object.keys(edges)) {
      const left = async (cost: string) => {
        const { status, headers } = await ask(`/${name}?cost=${cost}`)
        t.equal(headers['x-cost'], name === 'kept' && status === 200 ? cost : undefined, name)
        if (status === 200) t.equal(headers['x-cost-unit'], 'token')
        return status === 200 ? Number(headers['ratelimit-remaining']) : status
      }
      t.equal(await left('4'), 9, name)
      t.equal(await left('0'), 5, 'the cost of the request before, not what it was let in with')
      t.equal(await left('1.5'), 4)
      t.equal(await left('-5'), 2, 'rounded up')
      t.equal(await left(name === 'memory' ? '1e3' : '99999999999'), 1, 'lets in as long as there is a unit')
      t.equal(await left('1'), 429)
    }
  })
}

for (const protocol of protocols) {
  t.test(`costHeader over ${protocol}: the calls of a composed route add up`, async (t) => {
    const service = await startService((request, response) => {
      const { pathname, searchParams } = new URL(request.url!, 'http://h')
      const cost = searchParams.get(pathname.slice(1)) ?? ''
      response.writeHead(pathname === '/third' ? 500 : 200, { 'X-Cost': cost, 'Content-Type': 'application/json' })
      response.end('{}')
    })
    t.teardown(service.close)
    const redis = await startRedis()
    t.teardown(() => redis.stop())
    const call = (name: string) => ({
      service: 'any',
      path: `/${name}`,
      query: { [name]: `{query.${name}}` },
      group: name
    })
    const calls = {
      first: call('first'),
      second: call('second'),
      third: { ...call('third'), required: false }
    }
    const route = (name: string, rateLimit: object) => ({
      name,
      match: { path: `/${name}`, methods: ['GET'] },
      compose: { calls, response: { headers: { 'x-first': '{calls.first.headers.x-cost}' } } },
      edge: { rateLimit: { max: 100, window: '1h', costHeader: 'x-cost', ...rateLimit } }
    })
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      listen: listenFor(t, protocol),
      redis: { url: redis.url, timeout: '2s' },
      routes: [route('memory', {}), route('redis', { store: 'redis', cost: 2, keepCostHeader: true })]
    })
    const { ask } = anyClient(t, protocol, gateway.port)
    const { metrics } = gateway.server
    await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
    const left = async (target: string) => Number((await ask(target)).headers['ratelimit-remaining'])
    t.equal(await left('/memory?first=3&second=4&third=5'), 99)
    t.equal(await left('/memory?first=0&second=0&third=0'), 99 - 12)
    t.equal(await left('/memory?first=x&second=0&third=0.5'), 99 - 13)
    t.equal(await left('/memory?first=0&second=0&third=0'), 99 - 14, 'the request itself is the first unit')
    t.equal(await left('/redis?first=1&second=1&third=1'), 98)
    t.equal(await left('/redis?first=0&second=0&third=0'), 98 - 3, 'two of the three were paid')
    t.equal((await ask('/redis?first=1&second=0&third=0')).headers['x-first'], '1', 'a header that is kept')
    t.equal((await ask('/memory?first=1&second=0&third=0')).headers['x-first'], undefined, 'a header that is removed')
    t.equal((await ask('/memory?first=1e9&second=0&third=0')).status, 200)
    t.equal((await ask('/memory?first=0&second=0&third=0')).status, 429)
  })
}

t.test('lease: a node asks Redis once per batch, and the limit holds', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const client = new Redis(redis.url)
  t.teardown(() => client.disconnect())
  const service = await startEcho()
  t.teardown(service.close)
  const scripts = async () => {
    const calls = [...(await client.info('commandstats')).matchAll(/cmdstat_eval(?:sha)?:calls=(\d+)/g)]
    return calls.reduce((sum, [, count]) => sum + Number(count), 0)
  }
  const lease = 20
  for (const algorithm of ['fixed-window', 'sliding-window', 'token-bucket']) {
    const max = algorithm === 'token-bucket' ? { max: 1, burst: 200 } : { max: 200 }
    const start = async () => {
      const gateway = await gatewayBefore(t, service.url, {
        admin: { port: 0 },
        redis: { url: redis.url, timeout: '2s' },
        edge: { rateLimit: { ...max, window: '1h', store: 'redis', algorithm, lease } }
      })
      const { metrics } = gateway.server
      await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
      return gateway
    }
    const nodes = [await start(), await start()]
    const before = await scripts()
    let passed = 0
    for (let i = 0; i < 150; i++) if ((await get(nodes[i % 2]!.port, '/')).status === 200) passed++
    t.equal(passed, 150)
    const asked = (await scripts()) - before
    // Each node announces itself besides, every five seconds.
    t.ok(asked >= 8 && asked <= 20, `${algorithm}: Redis was asked ${asked} times for 150 requests`)
    const rest = await Promise.all(Array.from({ length: 120 }, (_, i) => get(nodes[i % 2]!.port, '/')))
    passed += rest.filter(({ status }) => status === 200).length
    // Nothing flows into the bucket of one unit an hour, so that the units of the leases are all there are.
    t.ok(passed <= 200, `${algorithm}: ${passed} of 200 passed`)
    t.ok(passed > 200 - nodes.length * lease, `${algorithm}: ${passed} of 200 passed`)
    for (const { server } of nodes) {
      const text = await server.metrics.metrics()
      t.match(text, /rate_limit_decisions_total\{route="all",step="lease"\} [1-9]/)
      t.match(text, /rate_limit_decisions_total\{route="all",step="share"\} 0/)
    }
    await Promise.all(nodes.map(({ close }) => close()))
    await client.flushall()
  }
})

t.test('lease: units of a token bucket stay valid, and no more than a lease for each node is exceeded', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const service = await startEcho()
  t.teardown(service.close)
  // The bucket is full again 5 ms after a lease was taken.
  const limit = { max: 1000, burst: 5, window: '1s', lease: 5, store: 'redis', algorithm: 'token-bucket' }
  const start = async (rateLimit: object) => {
    const gateway = await gatewayBefore(t, service.url, {
      admin: { port: 0 },
      redis: { url: redis.url, timeout: '2s' },
      edge: { rateLimit }
    })
    const { metrics } = gateway.server
    await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
    return gateway
  }
  const slow = await start(limit)
  for (let i = 0; i < 10; i++) {
    await sleep(10)
    t.equal((await get(slow.port, '/')).status, 200)
  }
  const text = await slow.server.metrics.metrics()
  t.match(text, /decisions_total\{route="all",step="redis"\} 2\n/, 'Redis was asked for two leases')
  t.match(text, /decisions_total\{route="all",step="lease"\} 8\n/)
  await slow.close()

  // One unit flows into this bucket in an hour.
  const nodes = [1, 2].map(() => start({ ...limit, max: 1, burst: 60, window: '1h', lease: 20, name: 'other' }))
  const [one, two] = (await Promise.all(nodes)) as [RunningGateway, RunningGateway]
  const passed = async ({ port }: RunningGateway, count: number) => {
    const all = await Promise.all(Array.from({ length: count }, () => get(port, '/')))
    return all.filter(({ status }) => status === 200).length
  }
  t.equal(await passed(one, 1), 1)
  t.equal(await passed(two, 100), 40, 'the rest of the bucket')
  t.equal(await passed(one, 100), 19, 'the rest of its lease')
})

for (const protocol of protocols) {
  t.test(`lease over ${protocol}: a burst within the limit waits for the units on their way`, async (t) => {
    const redis = await startRedis()
    t.teardown(() => redis.stop())
    const client = new Redis(redis.url)
    t.teardown(() => client.disconnect())
    const service = await startEcho()
    t.teardown(service.close)
    const window = { window: '1h', store: 'redis' }
    const kinds = {
      'fixed-window': { ...window, max: 60, lease: 20 },
      'sliding-window': { ...window, max: 60, lease: 20, algorithm: 'sliding-window' },
      'token-bucket': { ...window, max: 1, burst: 60, lease: 20, algorithm: 'token-bucket' },
      costs: { ...window, max: 180, lease: 20, cost: 3 },
      two: [
        { ...window, max: 60, lease: 20 },
        { ...window, max: 1000, lease: 7, by: 'route' },
        { ...window, max: 100, window: '1d', store: 'memory' }
      ]
    }
    for (const [name, rateLimit] of Object.entries(kinds)) {
      const gateway = await gatewayBefore(t, service.url, {
        admin: { port: 0 },
        listen: listenFor(t, protocol),
        redis: { url: redis.url, timeout: '20s' },
        edge: { rateLimit }
      })
      const { metrics } = gateway.server
      await eventually(async () => (await metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
      const clients = Array.from({ length: 5 }, () => anyClient(t, protocol, gateway.port))
      redis.pause()
      let arrived = 0
      const count = () => void arrived++
      for (const channel of arrivals) diagnostics.subscribe(channel, count)
      const burst = Array.from({ length: 80 }, (_, i) => clients[i % 5]!.ask('/'))
      await eventually(() => arrived === 80, 'all requests')
      for (const channel of arrivals) diagnostics.unsubscribe(channel, count)
      redis.resume()
      const statuses = (await Promise.all(burst)).map(({ status }) => status)
      t.equal(statuses.filter((status) => status === 200).length, 60, `${name}: all that the limit allows`)
      t.equal(statuses.filter((status) => status === 429).length, 20, name)
      const text = await metrics.metrics()
      t.notMatch(text, /decisions_total\{route="all",step="share"\} [1-9]/, name)
      const asked = Number(/decisions_total\{route="all",step="redis"\} (\d+)/.exec(text)?.[1])
      t.ok(asked <= 8, `${name}: Redis was asked ${asked} times for 80 requests`)
      await gateway.close()
      await client.flushall()
    }
  })
}

t.test('a million addresses: memory is bounded, and no counter is reset', async (t) => {
  for (const algorithm of Object.values(algorithms)) {
    const quota = { max: 100, window: 3_600_000, burst: 100 }
    const entries = new Entries(algorithm, quota)
    const now = 5_000_000
    const attackers = Array.from({ length: 500 }, (_, i) => `ip:attacker ${i}`)
    for (const key of attackers) algorithm.add(entries.get(key, now), 100, quota)
    const flood = (from: number, to: number) => {
      for (let i = from; i < to; i++) algorithm.add(entries.get(`ip:2001:db8:${i.toString(16)}::`, now), 1, quota)
    }
    const addresses = algorithm.tag === 'f' ? 1_000_000 : 400_000
    flood(0, 300_000)
    collectGarbage()
    const { heapUsed, arrayBuffers } = process.memoryUsage()
    flood(300_000, addresses)
    collectGarbage()
    const after = process.memoryUsage()
    const grown = after.heapUsed + after.arrayBuffers - heapUsed - arrayBuffers
    t.ok(grown < 10_000_000, `${algorithm.tag}: ${Math.round(grown / 1e6)} MB more`)
    for (const key of attackers) {
      const used = algorithm.used(entries.get(key, now), now, quota)
      if (used < 99.999) t.fail(`${key} has ${used}`)
    }
    const strangers = Array.from({ length: 1000 }, (_, i) => entries.get(`ip:stranger ${i}`, now))
    const most = Math.max(...strangers.map((entry) => algorithm.used(entry, now, quota)))
    t.equal(most, 0, 'callers that are seen first have used nothing')
  }
})
