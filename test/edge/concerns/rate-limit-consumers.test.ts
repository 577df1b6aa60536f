// slow: starts Redis
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import t from 'tap'
import { anyClient, listenFor, protocols } from '../../helpers/edge/asking-client.ts'
import { claims, secret, token } from '../../helpers/edge/tokens.ts'
import { handshake } from '../../helpers/edge/websocket.ts'
import { eventually } from '../../helpers/eventually.ts'
import { connect, gatewayBefore, get, startEcho, startService } from '../../helpers/gateway.ts'
import { startRedis } from '../../helpers/redis.ts'

const as = (sub: string) => ({ authorization: `Bearer ${token(claims({ sub }))}` })
const line = (sub: string) => [`Authorization: ${as(sub).authorization}`]
const named = (name: string, more: object) => ({ name, jwt: { sub: name }, ...more })

async function statuses(port: number, path: string, sub: string, count: number): Promise<number[]> {
  const all: number[] = []
  for (let i = 0; i < count; i++) all.push((await get(port, path, line(sub))).status)
  return all
}

/** A service whose responses wait until they are let go. */
async function heldService(t: Test) {
  const held: (() => void)[] = []
  const service = await startService((_request, response) => held.push(() => response.end('x')))
  t.teardown(service.close)
  return { url: service.url, held, release: () => held.splice(0).forEach((respond) => void respond()) }
}

t.test('a consumer has limits of its own in place of those of the route', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const routes = [
    { name: 'by-consumer', rateLimit: { max: 2, window: '1h', by: 'consumer' } },
    { name: 'by-ip', rateLimit: { max: 100, window: '1h' } },
    { name: 'listed', rateLimit: [{ max: 2, window: '1h', by: 'consumer', algorithm: 'token-bucket' }] },
    { name: 'off', rateLimit: false }
  ].map(({ name, rateLimit }) => ({ name, match: { path: `/${name}` }, service: 'any', edge: { rateLimit } }))
  const gateway = await gatewayBefore(t, echo.url, {
    admin: { port: 0 },
    redis: { url: redis.url, timeout: '2s' },
    edge: { jwt: { secret } },
    routes,
    consumers: [
      named('gold', { edge: { rateLimit: { max: 4, window: '1h' } } }),
      named('free', { edge: { rateLimit: false } }),
      named('quota', { edge: { rateLimit: [{ max: 3, window: '30d', store: 'redis' }] } }),
      named('bucket', { edge: { rateLimit: [{ max: 3, window: '1h', algorithm: 'token-bucket' }] } }),
      named('pair', { edge: { rateLimit: [{ max: 3, window: '30d', by: 'ip' }] } }),
      named('other', { edge: { rateLimit: [{ max: 3, window: '30d', by: 'ip' }] } })
    ]
  })
  const { port, server } = gateway
  await eventually(async () => (await server.metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
  for (const path of ['/by-consumer', '/listed']) {
    t.same(await statuses(port, path, 'ann', 3), [200, 200, 429], path)
    t.same(await statuses(port, path, 'free', 5), [200, 200, 200, 200, 200], path)
  }
  t.same(await statuses(port, '/by-consumer', 'gold', 3), [200, 200, 200])
  t.same(await statuses(port, '/by-ip', 'gold', 2), [200, 429], 'besides the limit of the address')
  t.same(await statuses(port, '/listed', 'gold', 1), [429], 'one count over all routes')
  t.same(await statuses(port, '/off', 'gold', 1), [429], 'also on a route without limits')
  t.same(await statuses(port, '/off', 'free', 5), [200, 200, 200, 200, 200])
  t.same(await statuses(port, '/off', 'ann', 5), [200, 200, 200, 200, 200], 'which has none for others')
  for (const consumer of ['quota', 'bucket', 'pair', 'other']) {
    const spread = []
    for (const path of ['/by-ip', '/by-ip', '/listed', '/by-consumer'])
      spread.push(...(await statuses(port, path, consumer, 1)))
    t.same(spread, [200, 200, 200, 429], `${consumer}: one count over several routes`)
  }
})

t.test('a changed file with consumers changes their limits at once', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const file = join(t.testdir(), 'consumers.json')
  const write = (max: number) =>
    writeFileSync(file, JSON.stringify([named('ann', { edge: { rateLimit: { max, window: '1h' } } })]))
  write(2)
  const { port } = await gatewayBefore(t, echo.url, {
    consumers: { file },
    edge: { jwt: { secret }, rateLimit: { max: 1, window: '1h', by: 'consumer' } }
  })
  t.same(await statuses(port, '/', 'ann', 3), [200, 200, 429])
  write(4)
  await eventually(async () => (await get(port, '/', line('ann'))).status === 200, 'the new limit')
  t.same(await statuses(port, '/', 'ann', 2), [200, 429], 'the count goes on')
})

for (const protocol of protocols) {
  t.test(`maxConcurrent over ${protocol}: requests in flight of one consumer`, async (t) => {
    const { url, held, release } = await heldService(t)
    const gateway = await gatewayBefore(t, url, {
      listen: listenFor(t, protocol),
      edge: { jwt: { secret }, rateLimit: [{ maxConcurrent: 2, by: 'consumer' }] },
      routes: ['/', '/other'].map((path, i) => ({ name: `r${i}`, match: { path }, service: 'any' })),
      consumers: [named('gold', { edge: { rateLimit: { maxConcurrent: 3 } } })]
    })
    const { begin, ask } = anyClient(t, protocol, gateway.port)
    const calls = [begin('/', { headers: as('ann') }), begin('/', { headers: as('ann') })]
    await eventually(() => held.length === 2, 'two requests')
    const refused = await ask('/', { headers: as('ann') })
    t.equal(refused.status, 429)
    t.equal(refused.headers['retry-after'], '1')
    t.match(JSON.parse(refused.body.toString()), { code: 'JW_CONCURRENCY_LIMITED' })
    const others = [1, 2, 3].map(() => begin('/', { headers: as('gold') }))
    await eventually(() => held.length === 5, 'three requests of another consumer')
    t.equal((await ask('/', { headers: as('gold') })).status, 429)
    t.equal((await ask('/other', { headers: as('gold') })).status, 429, 'all routes are counted together')
    await calls[0]!.leave()
    const next = begin('/', { headers: as('ann') })
    await eventually(() => held.length === 6, 'a request in place of one whose client has left')
    release()
    t.equal((await next.response).status, 200)
    for (const call of [calls[1]!, ...others]) t.equal((await call.response).status, 200)
    const last = begin('/', { headers: as('ann') })
    await eventually(() => held.length === 1, 'all are free again')
    release()
    await last.response
  })
}

t.test('maxConcurrent: a WebSocket is in flight until it ends', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const service = await startService(() => {})
  t.teardown(service.close)
  const { port } = await gatewayBefore(t, service.url, { edge: { rateLimit: { maxConcurrent: 1, by: 'route' } } })
  const client = connect(port, `${handshake('/')}\r\n`)
  await eventually(async () => (await get(port, '/')).status === 429, 'the handshake to be in flight')
  client.socket.destroy()
  const { port: other } = await gatewayBefore(t, echo.url, { edge: { rateLimit: { maxConcurrent: 1, by: 'route' } } })
  t.equal((await get(other, '/')).status, 200)
  t.equal((await get(other, '/')).status, 200)
})

t.test('mode: shadow, of a limit alone and of one in a list', async (t) => {
  const echo = await startEcho()
  t.teardown(echo.close)
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const shadow = { max: 1, window: '1h', mode: 'shadow' }
  const routes = [
    { name: 'plain', rateLimit: shadow },
    { name: 'bucket', rateLimit: { ...shadow, algorithm: 'token-bucket' } },
    { name: 'shared', rateLimit: { ...shadow, store: 'redis' } },
    {
      name: 'list',
      rateLimit: [
        { max: 3, window: '1h' },
        { ...shadow, by: 'route' }
      ]
    },
    {
      name: 'both',
      rateLimit: [
        { max: 3, window: '1h', store: 'redis' },
        { ...shadow, by: 'route', store: 'redis' }
      ]
    }
  ].map(({ name, rateLimit }) => ({ name, match: { path: `/${name}` }, service: 'any', edge: { rateLimit } }))
  const gateway = await gatewayBefore(
    t,
    echo.url,
    { admin: { port: 0 }, redis: { url: redis.url, timeout: '2s' }, routes },
    { log: true }
  )
  const { port, server, log } = gateway
  await eventually(async () => (await server.metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
  const expected: Record<string, [number[], number]> = {
    plain: [[200, 200, 200, 200], 3],
    bucket: [[200, 200, 200, 200], 3],
    shared: [[200, 200, 200, 200], 3],
    list: [[200, 200, 200, 429], 3],
    both: [[200, 200, 200, 429], 3]
  }
  for (const [name, [all, count]] of Object.entries(expected)) {
    const asked = []
    for (let i = 0; i < 4; i++) asked.push(await get(port, `/${name}`))
    t.same(
      asked.map(({ status }) => status),
      all,
      name
    )
    t.equal(asked[1]!.headers['retry-after'], undefined, name)
    const series = `jingwei_edge_shadow_refusals_total{concern="rate-limit",route="${name}"} ${count}`
    t.ok((await server.metrics.metrics()).includes(series), series)
    await eventually(() => log.some((each) => each.route === name && each.shadow !== undefined), 'an access line')
  }
  const { shadow: refusals } = log.find((each) => each.route === 'list' && each.shadow !== undefined)!
  t.same(refusals, [{ concern: 'rate-limit', error: 'JW_RATE_LIMITED', reason: 'rate_route' }])
})

t.test('in shadow mode, a key that was sent twice is recorded', async (t) => {
  const redis = await startRedis()
  t.teardown(() => redis.stop())
  const twice = { max: 9, window: '1h', by: 'header:x-key', mode: 'shadow' }
  const late = { max: 9, window: '1h', by: 'consumer', store: 'redis' }
  const limits: Record<string, object> = {
    plain: twice,
    bucket: { ...twice, algorithm: 'token-bucket' },
    list: [twice],
    several: [
      { ...twice, by: ['ip', 'header:x-key'] },
      { max: 9, window: '1h' }
    ],
    concurrent: [{ maxConcurrent: 9, by: 'header:x-key', mode: 'shadow' }],
    shared: [{ ...twice, store: 'redis' }, late]
  }
  const routes = Object.entries(limits).map(([name, rateLimit]) => ({
    name,
    match: { path: `/${name}` },
    service: 'any',
    edge: { rateLimit, jwt: { secret } }
  }))
  for (const protocol of protocols) {
    const echo = await startEcho()
    t.teardown(echo.close)
    const config = { listen: listenFor(t, protocol), redis: { url: redis.url, timeout: '2s' }, routes }
    const { port, server, log } = await gatewayBefore(t, echo.url, { admin: { port: 0 }, ...config }, { log: true })
    await eventually(async () => (await server.metrics.metrics()).includes('jingwei_edge_redis_up 1'), 'Redis')
    const { ask } = anyClient(t, protocol, port)
    for (const name of Object.keys(limits)) {
      const headers = { ...as('ann'), 'x-key': 'a', X_Key: 'b' }
      t.equal((await ask(`/${name}`, { headers })).status, 200, `${name} over ${protocol}`)
      await eventually(() => log.some((each) => each.route === name && each.shadow !== undefined), 'an access line')
      const { shadow } = log.find((each) => each.route === name && each.shadow !== undefined)!
      t.same(shadow, [{ concern: 'rate-limit', error: 'JW_SEVERAL_VALUES' }], name)
      t.equal(
        (await ask(`/${name}`, { headers: { ...as('no'), authorization: 'Bearer no', 'x-key': 'a', x_key: 'b' } }))
          .status,
        401,
        'counted last'
      )
    }
  }
})
